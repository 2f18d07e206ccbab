"""Tuning: candidates for one program on one kind of graph, measured on this machine, and what won, remembered"""

"""The fuzzer's second front: random Python functions, traced and compiled, against the same functions run eagerly in float64.

kinds.py, grow.py                   what a value is, and a program that grows a line at a time
pointwise.py, features.py, shapes.py, products.py, relational.py, plain.py, patterns.py
                                    what the next lines may be
assemble.py                         lines made a function, with helpers, or a module
case.py, values.py                  one case: source text, graphs, inputs, special values among them
source.py, session.py, check.py     the oracle: the source run eagerly and compiled, call by call, and compared
compare.py, noise.py                when numbers are the same
executables.py                      plans run by the reference, or many of them built as one library
shrink.py                           a failing case made small
campaign.py, report.py              the loop, and what it says
"""

"""The intermediate representations: what a program is. Imports nothing else of Columba."""

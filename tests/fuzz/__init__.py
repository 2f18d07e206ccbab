"""A fuzzer of the compiler: random programs, random pass sequences and random graphs against the reference.

In the manner of Tzer (Liu et al., OOPSLA 2022), the program and the sequence of passes are mutated together, and what reaches
new code or a new combination of features is kept to be mutated further. ``python -m tests.fuzz --programs N --seed S``.

    graphs.py, schedules.py             what is random: graphs, sequences of passes, schedules of kernels
    grow.py, rules.py, idioms/          and programs, an operation or a pattern at a time
    case.py                             one case: all of it together, with a text form that round-trips
    mutate.py, coverage.py              the search
    check.py, plans.py, kernels.py      the oracle, for passes, for plans and for compiled kernels
    shrink.py                           a failing case made small
    campaign.py                         the loop
    mutants.py                          faults planted in the compiler, to see whether all this finds them
"""

"""``python -m tests.golden [--plans]``: writes the golden files anew."""

import argparse

from tests.golden.sources import write

parser = argparse.ArgumentParser(description="Writes the golden files of emitted Triton source anew.")
parser.add_argument("--plans", action="store_true", help="the plans too, from the layers as they compile today")
write(plans=parser.parse_args().plans)

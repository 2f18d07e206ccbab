#!/bin/sh
# A compiler's command with -O0 as the last of its options, which is the one that counts: CXX="tests/unoptimized.sh c++".
exec "$@" -O0

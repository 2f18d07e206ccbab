"""The table at the end."""

from __future__ import annotations

from .campaign import Report
from .coverage import Coverage


def table(report: Report, seconds: float) -> str:
    """Programs, rules and lines covered by module, features, failures."""
    coverage = Coverage()
    coverage.lines = report.lines
    rows = [("module", "rules", "of", "lines", "of"), *coverage.report()]
    lines = [f"{name:44} {a:>6} {b:>5} {c:>6} {d:>5}" for name, a, b, c, d in rows]
    total = [sum(row[n] for row in coverage.report()) for n in range(1, 5)]
    lines.append(f"{'all':44} {total[0]:>6} {total[1]:>5} {total[2]:>6} {total[3]:>5}")
    lines.append("")
    lines += [
        f"{name}: ran {count} times, changed {report.changed[name]} programs"
        for name, count in sorted(report.ran.items())
    ]
    rate = report.programs / max(seconds, 1e-9)
    lines += [
        "",
        f"features {len(report.features)}, failures {len(report.failures)}",
        f"programs {report.programs} ({rate:.0f} a second)",
        f"ill-conditioned {report.rejected}, lowered to plans {report.lowered}",
        f"compiled to source {report.emitted}, built and run {report.built}",
    ]
    lines += [f"  {count} times: {signature}" for signature, count in report.signatures.most_common()]
    return "\n".join(lines)

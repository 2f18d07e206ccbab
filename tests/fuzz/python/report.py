"""What a campaign says at the end."""

from __future__ import annotations

from .campaign import Report
from .grow import RULES


def table(report: Report, seconds: float) -> str:
    """Programs, what they were made of, what was refused, and failures."""
    lines = ["rule: how many programs it added lines to"]
    lines += [f"  {name:24} {report.rules[name]:>7}" for name in RULES]
    lines += ["trait: how many programs have it"]
    lines += [f"  {name:24} {count:>7}" for name, count in sorted(report.traits.items())]
    for title, counts in (
        ("eager code refuses", report.eager),
        ("refused, with the line", report.refusals),
    ):
        lines += [f"{title}: {sum(counts.values())}"]
        lines += [f"  {count:>5} {said}" for said, count in counts.most_common(25)]
    eager, refused = sum(report.eager.values()), sum(report.refusals.values())
    compared = report.programs - eager - refused - report.rejected
    rate = report.programs / max(seconds, 1e-9)
    lines += [
        "",
        f"programs {report.programs} ({rate:.1f} a second), lines {report.lines}, rules {len(+report.rules)} of {len(RULES)}",
        f"eager refuses {eager}, refused {refused}, ill-conditioned {report.rejected}, compared {compared}",
        f"built to kernels and run {report.built}",
        f"failures {len(report.failures)}",
    ]
    lines += [f"  {count} times: {signature}" for signature, count in report.signatures.most_common()]
    return "\n".join(lines)

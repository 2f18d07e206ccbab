"""The Jinja templates of a target, which stand beside its modules."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


@functools.cache
def template(package: str, name: str) -> jinja2.Template:
    """The template ``name`` of a package; a hook that gets no value is an error."""
    return _environment(package).get_template(name)


@functools.cache
def text(package: str, name: str) -> str:
    """A file of a package as it stands."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    import jinja2  # kernels that are built need none of it

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(functools.partial(text, package)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

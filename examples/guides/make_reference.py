"""Write reference.md from the docstrings: all public names with their arguments, and a line for each module.

``--check`` writes nothing; it exits with 1 if reference.md is not up to date.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
from itertools import pairwise, takewhile
from pathlib import Path
from types import ModuleType

import lightning_cka
from lightning.pytorch import Callback

OUTPUT = Path(__file__).with_name("reference.md")
PACKAGE = Path(lightning_cka.__file__).parent
PLACES = ("plotting", "compare", "decisions", "diagnostics", "kernels")
"""Modules of the package whose public names are listed after those of the package itself."""
ROOMS = ("hsic", "runtime", "probe", "compare", "decisions", "figures", "view", "monitor", "cli")
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
HEAD = """# Reference

All public names with their arguments, then one line for each module. `make_reference.py` writes this file from the
docstrings: do not edit it.
"""


def sections(docstring):
    """Split a Google docstring: by title, the text of each section; the text before them has the title ''."""
    found, title = {"": []}, ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        match = re.fullmatch(rf"({'|'.join(SECTIONS)})s?:", line)
        if match:
            title = match[1]
            found[title] = []
        else:
            found[title].append(line)
    return {title: inspect.cleandoc("\n".join(lines)) for title, lines in found.items()}


def items(text):
    """Split a section of the form ``name: text``, with indented continuation lines: the text by name."""
    found, name = {}, None
    for line in text.splitlines():
        match = re.match(r"\*{0,2}(\w+)(?: \([^)]*\))?: ?(.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name is not None:
            found[name] += f" {line.strip()}"
    return {name: text.strip() for name, text in found.items()}


def field_docs(cls):
    """The texts under the fields of a class, by field."""
    try:
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0].body
    except (OSError, TypeError, SyntaxError):
        return {}
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def markdown(text):
    """A docstring's text as Markdown: RST literals as code, line breaks as they are."""
    return text.replace("``", "`").strip()


def one_line(text):
    return " ".join(markdown(text).split())


def written(default):
    """A default value as a user writes it."""
    if isinstance(default, str):
        return json.dumps(default)
    text = getattr(default, "__name__", None) or repr(default)
    return "..." if text.startswith("<") else text


def signature_of(value):
    """The parameters that a user gives; none if there is no signature to read."""
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return []
    return [p for place, p in enumerate(parameters) if not (place == 0 and p.name in ("self", "cls"))]


def call(name, parameters, *, multiline=False):
    """A call with all arguments and their defaults."""
    parts = []
    for place, parameter in enumerate(parameters):
        before = parameters[:place]
        is_first = parameter.kind is parameter.KEYWORD_ONLY and not any(
            p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL) for p in before
        )
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={written(parameter.default)}"
        parts += ["*"] * is_first + [f"{stars}{parameter.name}{default}"]
    line = f"{name}({', '.join(parts)})"
    return line if len(line) <= 100 or not multiline else f"{name}(\n    {f',{chr(10)}    '.join(parts)},\n)"


def annotation_text(annotation):
    """An annotation as it is in the source; empty if that cannot be known."""
    if isinstance(annotation, str):
        return annotation
    return getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", "")


def argument_lines(parameters, texts):
    lines = []
    for parameter in parameters:
        kind = parameter.annotation
        kind = "" if kind is parameter.empty else annotation_text(kind)
        text = texts.get(parameter.name, "")
        lines.append(
            f"- `{parameter.name}`" + (f" (`{kind}`)" if kind else "") + (f": {one_line(text)}" if text else "")
        )
    return lines


def named_lines(texts):
    return "\n".join(f"- `{name}`: {one_line(text)}" for name, text in texts.items())


BLOCK_OF = {
    "Returns": lambda text: f"Returns: {one_line(text)}",
    "Raises": lambda text: "Raises:\n\n" + named_lines(items(text)),
    "Example": lambda text: f"```pycon\n{text}\n```",
}


def text_blocks(found, parameters=(), fields=None):
    """The parts of a docstring, as blocks of Markdown."""
    texts = {**(fields or {}), **items(found.get("Attributes", "")), **items(found.get("Args", ""))}
    blocks = [markdown(found[""])] if found[""] else []
    if lines := argument_lines(parameters, texts):
        blocks.append("Arguments:\n\n" + "\n".join(lines))
    if others := {name: text for name, text in texts.items() if name not in {p.name for p in parameters}}:
        blocks.append("Attributes:\n\n" + named_lines(others))
    return blocks + [block(found[name]) for name, block in BLOCK_OF.items() if found.get(name)]


def is_hook(cls, name):
    """Whether a method overrides one of Lightning's: Lightning calls it, and no user."""
    return any(name in vars(base) for base in cls.__mro__[1:] if base.__module__.startswith("lightning."))


def members(cls):
    """Public methods and properties that the class defines, with what carries their docstring.

    A dataclass and a callback also have those of their bases in the package.
    """
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("lightning_cka.")]
    classes = [cls, *bases] if dataclasses.is_dataclass(cls) or issubclass(cls, Callback) else [cls]
    for name, value in (item for each in classes for item in vars(each).items()):
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        is_member = isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)
        if not is_member or name.startswith("_") or is_hook(cls, name) or not function.__doc__:
            continue
        if not function.__doc__.startswith("Deprecated"):
            yield name, function, isinstance(value, property)


def describe(name, value, level):
    """A function or a class, as blocks of Markdown."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return [f"{level} {name}", f"`{name} = {alias(name)}`"]
    if value.__name__ != name:
        return [f"{level} {name}", f"An older name of `{value.__name__}`."]
    parameters = signature_of(value)
    blocks = [f"{level} {name}", f"```python\n{call(name, parameters, multiline=True)}\n```"]
    if not inspect.isclass(value):
        return blocks + text_blocks(sections(value.__doc__), parameters)
    own = value.__doc__ or ""
    if dataclasses.is_dataclass(value) and own.startswith(f"{name}("):
        own = ""  # Made by dataclasses.
    blocks += text_blocks(sections(own), parameters, field_docs(value))
    for member, function, is_property in members(value):
        given = [] if is_property else signature_of(function)
        heading = f"`{name}.{member}`" if is_property else f"`{call(f'{name}.{member}', given)}`"
        blocks += [f"{level}# {heading}", *text_blocks(sections(function.__doc__), given)]
    return blocks


def alias(name):
    """The source text of a type alias of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]:
                return ast.unparse(node.value)
    return "..."


def public_names(module):
    names = getattr(module, "__all__", None)
    return list(names) if names else [name for name in vars(module) if not name.startswith("_")]


def describe_place(module, seen):
    """The public names of a module, each in full where it is listed first."""
    blocks = [f"## {module.__name__}", markdown(module.__doc__ or "")]
    for name in sorted(public_names(module), key=lambda name: (name.lower(), name)):
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            blocks += [f"`{name}`: see [below](#{value.__name__.replace('.', '')})."]
        elif isinstance(value, str):
            continue  # The version.
        elif (key := (name, id(value))) in seen:
            blocks.append(f"`{name}`: see [{name}](#{name.lower()}).")
        else:
            seen.add(key)
            blocks += describe(name, value, "###")
    return blocks


def summary(path):
    """The first sentence of a module's docstring, read from its source."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(takewhile(str.strip, text.splitlines()))
    return one_line(re.match(r".*?[.](?=\s|$)|.*", paragraph)[0]).replace("|", "\\|")


def describe_folder(folder):
    """The docstring of a folder of the package, and a line for each module in it."""
    name = folder.relative_to(PACKAGE.parent).as_posix()
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    rows = [
        f"| `{path.name}` | {summary(path)} |" for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"
    ]
    return [f"### {name}/", markdown(text), "\n".join(["| module | what it is for |", "|---|---|", *rows])]


def reference():
    """The whole text."""
    seen = set()
    names = [getattr(lightning_cka, name) for name in lightning_cka.__all__]
    modules = [value for value in names if isinstance(value, ModuleType)]
    places = [lightning_cka, *modules, *(importlib.import_module(f"lightning_cka.{name}") for name in PLACES)]
    blocks = [HEAD.strip()]
    for module in places:
        blocks += describe_place(module, seen)
    blocks += [
        "## Rooms",
        "Each step from a batch to a picture has a folder. Imports go from later steps to earlier ones only.",
    ]
    for folder in (*(PACKAGE / name for name in ROOMS), PACKAGE):
        blocks += describe_folder(folder)
    return "\n\n".join(block for block in blocks if block) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only see whether reference.md is up to date")
    options = parser.parse_args(arguments)
    text = reference()
    if not options.check:
        OUTPUT.write_text(text)
    elif not OUTPUT.exists() or OUTPUT.read_text() != text:
        sys.stderr.write(f"{OUTPUT} is not up to date: run python examples/guides/make_reference.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

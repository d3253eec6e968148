"""Writes the JavaScript engine's types of events and of the manifest from the Python structs.

`python -m tools.js_types` writes both files anew; a test compares them with what this returns.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import msgspec
from msgspec import inspect as types

from sanderling.bundle import manifest
from sanderling.events import schema

SOURCE = Path(__file__).parent.parent / "engine" / "js" / "src"
WIDTH = 100
EVENTS = (schema.Decision, schema.Outcome, schema.Observation, schema.StateReset, schema.Loss)

HELPERS = (
    "bool",
    "choice",
    "field",
    "float",
    "int",
    "list",
    "map",
    "record",
    "struct",
    "text",
    "tuple",
)
"""What `runtime/structs.ts` describes types with."""

Docs = dict[str, str]
"""The docstring under each name of a module or a class."""


def files() -> dict[Path, str]:
    """Return the generated text of each file, by path."""
    wire = _module(schema, (*EVENTS, schema.BatchResponse)) + _event_union()
    return {
        SOURCE / "events" / "wire.ts": wire,
        SOURCE / "bundle" / "manifestTypes.ts": _module(manifest, (manifest.Manifest,)),
    }


def _module(module: ModuleType, roots: Iterable[type]) -> str:
    """Return the constants of a module, and the structs that `roots` need, as TypeScript."""
    tree = ast.parse(inspect.getsource(module))
    docs = _docs(tree.body)
    summary = f"Generated from `{module.__name__}` by `python -m tools.js_types`: do not edit."
    parts = [f"/** {summary} */\n"]
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, int | float | str | tuple):
            parts.append(_comment(docs.get(name)) + f"export const {name} = {_constant(value)};\n")

    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for struct in _needed(roots):
        parts.append(_interface(struct, classes))
        parts.append(_spec(struct))
    used = [name for name in HELPERS if re.search(rf"\b{name}\(", "".join(parts))]
    names = ["type StructSpec", *used] if module is schema else used
    # Together, since a source has at most 430 lines.
    parts.insert(1, f'import {{\n  {", ".join(names)},\n}} from "../runtime/structs.js";\n')
    return "\n".join(parts)


def _constant(value: object) -> str:
    if isinstance(value, tuple):
        return _wrapped("[", [json.dumps(each) for each in value], "] as const")
    return repr(value) if isinstance(value, int | float) else json.dumps(value)


def _needed(roots: Iterable[type]) -> list[type]:
    """Return structs in an order in which each follows those that its fields hold."""
    found: list[type] = []

    def visit(kind: types.Type) -> None:
        for inner in _inner(kind):
            visit(inner)
        if isinstance(kind, types.StructType) and kind.cls not in found:
            found.append(kind.cls)

    for root in roots:
        visit(types.type_info(root))
    return found


def _inner(kind: types.Type) -> Iterator[types.Type]:
    """Yield the types that a type is made of."""
    if isinstance(kind, types.StructType):
        yield from (field.type for field in kind.fields)
    elif isinstance(kind, types.UnionType):
        yield from kind.types
    elif isinstance(kind, types.ListType | types.VarTupleType):
        yield kind.item_type
    elif isinstance(kind, types.TupleType):
        yield from kind.item_types
    elif isinstance(kind, types.DictType):
        yield kind.value_type


def _interface(struct: type, classes: dict[str, ast.ClassDef]) -> str:
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    docs = _inherited_docs(struct, classes)
    lines = [_comment(ast.get_docstring(classes[struct.__name__])).rstrip("\n")]
    lines.append(f"export interface {struct.__name__} {{")
    if info.tag is not None:
        lines.append(f'  readonly {info.tag_field}: "{info.tag}";')
    for field in info.fields:
        comment = _comment(docs.get(field.name), "  ").rstrip("\n")
        mark = "?" if _is_omitted(field) else ""
        text = _ts_type(field.type) + (" | undefined" if mark else "")
        lines += [comment] if comment else []
        lines.append(f"  readonly {field.name}{mark}: {text};")
    return "\n".join([*lines, "}\n"])


def _spec(struct: type) -> str:
    """Return the constant by which values of a struct are checked and encoded."""
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    options = {"tag": info.tag, "lenient": None if info.forbid_unknown_fields else True}
    fields = "".join(f"  {_field(field)},\n" for field in info.fields)
    arguments = ", ".join([f'"{struct.__name__}"', *_object(**options)])
    return f"export const {_constant_name(struct)} = struct({arguments}, [\n{fields}]);\n"


def _field(field: types.Field) -> str:
    """Return the description of a field; where it is too long, an argument a line."""
    nullable = True if _is_nullable(field.type) else None
    optional = True if _is_omitted(field) else None
    has_default = not (field.required or optional)
    fallback = _Code(_fallback(field)) if has_default else None
    options = _object(nullable=nullable, optional=optional, fallback=fallback)
    arguments = [f'"{field.name}"', _spec_type(field.type), *options]
    one = f"field({', '.join(arguments)})"
    if len(one) + len("  ,") <= WIDTH:
        return one
    return "field(\n" + "".join(f"    {each},\n" for each in arguments) + "  )"


class _Code(str):
    """JavaScript, where other texts stand for a string."""


def _object(**entries: object) -> list[str]:
    """Return an object literal of the entries that are not None, or nothing."""
    parts = [
        f"{name}: {value if isinstance(value, _Code) else json.dumps(value)}"
        for name, value in entries.items()
        if value is not None
    ]
    return [f"{{ {', '.join(parts)} }}"] if parts else []


def _fallback(field: types.Field) -> str:
    """Return a function that makes the default of a field: no two values share a list."""
    if field.default_factory is dict:
        is_map = isinstance(field.type, types.DictType) and not _is_any(field.type.value_type)
        return "() => new Map()" if is_map else "() => ({})"
    value = [] if field.default_factory is list else field.default
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    text = json.dumps(value)
    return f"() => ({text})" if text.startswith("{") else f"() => {text}"


def _spec_type(kind: types.Type) -> str:
    """Return the description of a type, without null and absence."""
    kind = _bare(kind)
    if isinstance(kind, types.StrType):
        pattern = None if kind.pattern is None else _Code(f"/{kind.pattern}/")
        return _call("text", min=kind.min_length, max=kind.max_length, pattern=pattern)
    if isinstance(kind, types.IntType | types.FloatType):
        name = "int" if isinstance(kind, types.IntType) else "float"
        return _call(name, min=kind.ge, max=kind.le, above=kind.gt, below=kind.lt)
    if isinstance(kind, types.BoolType):
        return _call("bool")
    if isinstance(kind, types.LiteralType):
        return _call("choice", json.dumps(kind.values))
    if isinstance(kind, types.ListType | types.VarTupleType):
        of = _spec_type(kind.item_type)
        return _call("list", of, min=kind.min_length, max=kind.max_length)
    if isinstance(kind, types.TupleType):
        return _call("tuple", *map(_spec_type, kind.item_types))
    if isinstance(kind, types.DictType):
        if _is_any(kind.value_type):
            return _call("record")
        return _call("map", _spec_type(kind.key_type), _spec_type(kind.value_type))
    if isinstance(kind, types.StructType):
        return _constant_name(kind.cls)
    raise TypeError(f"expected a type with a JavaScript form, found {kind}")


def _call(function: str, *arguments: str, **options: object) -> str:
    return f"{function}({', '.join([*arguments, *_object(**options)])})"


def _ts_type(kind: types.Type) -> str:
    """Return the TypeScript type of a field's value."""
    null = " | null" if _is_nullable(kind) else ""
    kind = _bare(kind)
    simple = {types.StrType: "string", types.BoolType: "boolean"}
    if isinstance(kind, types.LiteralType):
        return " | ".join(map(json.dumps, kind.values)) + null
    if isinstance(kind, types.IntType | types.FloatType):
        return f"number{null}"
    if isinstance(kind, types.ListType | types.VarTupleType):
        return f"readonly {_ts_type(kind.item_type)}[]{null}"
    if isinstance(kind, types.TupleType):
        return f"(readonly [{', '.join(map(_ts_type, kind.item_types))}]){null}"
    if isinstance(kind, types.DictType):
        if _is_any(kind.value_type):
            return f"Readonly<Record<string, unknown>>{null}"
        return f"ReadonlyMap<string, {_ts_type(kind.value_type)}>{null}"
    if isinstance(kind, types.StructType):
        return kind.cls.__name__ + null
    return simple[type(kind)] + null


def _bare(kind: types.Type) -> types.Type:
    """Return a type without None; msgspec leaves UNSET out of its description itself."""
    if isinstance(kind, types.UnionType):
        (kind,) = (each for each in kind.types if not isinstance(each, types.NoneType))
    return kind


def _is_nullable(kind: types.Type) -> bool:
    return isinstance(kind, types.UnionType) and kind.includes_none


def _is_omitted(field: types.Field) -> bool:
    """Return whether a field is UNSET by default, which is no field at all in JSON."""
    no_default = msgspec.NODEFAULT
    return not field.required and field.default is field.default_factory is no_default


def _is_any(kind: types.Type) -> bool:
    return isinstance(kind, types.AnyType)


def _constant_name(struct: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", struct.__name__).upper() + "_SPEC"


def _event_union() -> str:
    names = " | ".join(struct.__name__ for struct in EVENTS)
    specs = [f"{types.type_info(each).tag}: {_constant_name(each)}" for each in EVENTS]
    declared = 'export const EVENTS: Readonly<Record<Event["type"], StructSpec>> = {'
    table = _wrapped(declared, specs, "};\n")
    return (
        f"\n/** Any event. */\nexport type Event = {names};\n"
        f"\n/** The specification of each type of event. */\n{table}"
    )


def _docs(body: list[ast.stmt]) -> Docs:
    """Return the docstrings that follow assignments."""
    docs: Docs = {}
    for node, after in pairwise(body):
        is_doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if is_doc and isinstance(target, ast.Name):
            docs[target.id] = inspect.cleandoc(after.value.value)
    return docs


def _inherited_docs(struct: type, classes: dict[str, ast.ClassDef]) -> Docs:
    docs: Docs = {}
    for base in reversed(struct.__mro__):
        if base.__name__ in classes:
            docs |= _docs(classes[base.__name__].body)
    return docs


def _comment(doc: str | None, indent: str = "") -> str:
    """Return a docstring as a comment of TSDoc; nothing for none."""
    if doc is None:
        return ""
    doc = re.sub(r"\bNone\b", "null", doc)
    one = f"{indent}/** {' '.join(doc.split())} */"
    if len(one) <= WIDTH and "\n\n" not in doc:
        return one + "\n"
    lines = []
    for paragraph in doc.split("\n\n"):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), WIDTH - len(indent) - 3)]
    body = "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines[1:])
    return f"{indent}/**\n{body}{indent} */\n"


def _wrapped(head: str, parts: list[str], tail: str = "") -> str:
    """Return `head`, parts and `tail`, each part on a line of its own where it gets too long."""
    space = " " if head.endswith("{") else ""
    one = head + space + ", ".join(parts) + space + tail
    if len(one) <= WIDTH:
        return one
    return head + "\n" + "".join(f"  {part},\n" for part in parts) + tail


def main() -> None:
    """Write the files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

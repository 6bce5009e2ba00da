"""What the code cells of a page need from each other, found in their text: nothing is run.

`used_names` and `bound_names` look at one cell, `maker` finds the cell behind a name, and `needed` follows all names
backwards through a page. A cell that is not Python, even without its magics, uses and binds nothing; one that begins
with `%%needs` (`lab_utils.notebook.extras`) counts as if what it needs were installed.
"""

import ast
import builtins
import re
import symtable
from dataclasses import dataclass, field
from functools import lru_cache

from .extras import needs

IPYTHON = {"display", "get_ipython", "exit", "quit", "In", "Out", "_", "__", "___"}
GIVEN = set(dir(builtins)) | IPYTHON | {"__file__"}  # there before any cell has run


@dataclass
class _Names:
    """The names of a cell, or of a part of it."""

    used: set = field(default_factory=set)  # read at once, and not certainly bound before
    later: set = field(default_factory=set)  # read in the bodies of functions: when they are called
    bound: set = field(default_factory=set)  # bound in every branch
    maybe: set = field(default_factory=set)  # bound in some branch or in every one
    changed: set = field(default_factory=set)  # changed in place
    imported: set = field(default_factory=set)

    def copy(self) -> "_Names":
        """The same sets, to follow one branch."""
        return _Names(**{name: set(value) for name, value in vars(self).items()})

    def join(self, *branches: "_Names") -> None:
        """After branches: bound is what all of them bind."""
        for branch in branches:
            for name in ("used", "later", "maybe", "imported"):
                getattr(self, name).update(getattr(branch, name))
        self.bound = set.intersection(*(branch.bound for branch in branches))


def bound_names(source: str) -> set[str]:
    """Names that a cell binds at its top level, in any branch: by assignment, import, def, class, for, with."""
    return _names_of(source).maybe


def used_names(source: str) -> set[str]:
    """Names that must be there before a cell runs.

    Parameters
    ----------
    source : str
        The cell; magics and shell lines in it are ignored.

    Returns
    -------
    set of str
        What the cell reads and does not certainly bind before, the bodies of its functions included. Builtins and what
        IPython provides (`display`, `get_ipython`, `_`) do not count.
    """
    names = _names_of(source)
    return names.used | (names.later - names.bound)


def maker(sources: list[str], name: str, before: int) -> int | None:
    """The last of the cells 0 to `before` - 1 that binds a name, preferably in every branch."""
    cells = [_names_of(source) for source in sources[:before]]
    found = [index for index, cell in enumerate(cells) if name in cell.maybe]
    sure = [index for index in found if name in cells[index].bound]
    return max(sure or found, default=None)


def needed(sources: list[str], index: int) -> list[int]:
    """Earlier cells that a cell needs, directly or through others.

    Parameters
    ----------
    sources : list of str
        The page's code cells in order.
    index : int
        The cell in question, counted from 0.

    Returns
    -------
    list of int, ascending
        For each name it uses the last cell before that binds it, the cells between that change it in place
        (`x[0] = …`, `x.attr = …`, `x.method(…)` or `function(x, …)` as a statement), and what those need. What a
        function's body reads may also be bound after the function. A change that shows nowhere in the text
        (`y = function(x)` that changes x) is not found.
    """
    cells = [_names_of(source) for source in sources[: index + 1]]
    imported = set().union(*(cell.imported for cell in cells))
    found, asked = set(), set()

    def follow(cell: int) -> None:
        names = cells[cell]
        for name in names.used:
            look(name, cell)
        for name in names.later - names.bound:
            look(name, index)

    def look(name: str, before: int) -> None:
        if (name, before) in asked:
            return
        asked.add((name, before))
        for cell in reversed(range(before)):
            if name in cells[cell].maybe or (name in cells[cell].changed and name not in imported):
                if cell not in found:
                    found.add(cell)
                    follow(cell)
                if name in cells[cell].bound:
                    return

    follow(index)
    return sorted(found)


@lru_cache(maxsize=1024)
def _names_of(source: str) -> _Names:
    """All names of a cell."""
    if source.lstrip().startswith("%%") and not needs(source):
        return _Names()  # a cell in another language
    for text in (source, _without_magics(source)):
        names = _Names()
        try:
            statements = _Generators().visit(ast.parse(text)).body
            _walk(statements, names)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # magics, not Python, nested too deeply
            continue
        names.changed = _changed(statements, shown=statements[-1] if statements else None)
        return names
    return _Names()


class _Generators(ast.NodeTransformer):
    """Comprehensions as generators of the same names: Python 3.12 counts the names of others as the cell's own."""

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.GeneratorExp:
        return self.generic_visit(ast.GeneratorExp(node.elt, node.generators))

    visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> ast.GeneratorExp:
        both = ast.Tuple([node.key, node.value], ast.Load())
        return self.generic_visit(ast.GeneratorExp(both, node.generators))


def _without_magics(source: str) -> str:
    """`%magic`, `!shell` and `name?` lines become `pass`; `x = !shell` becomes `x = None`."""
    lines = []
    for line in source.splitlines():
        line = re.sub(r"^(\s*)([%!?].*|[\w.]+\?{1,2}\s*)$", r"\1pass", line)
        lines.append(re.sub(r"^(\s*[\w, ]+=\s*)[%!].*$", r"\1None", line))
    return "\n".join(lines)


def _walk(statements: list[ast.stmt], names: _Names) -> None:
    """Follow statements in order, branch by branch. A `for` is taken to run at least once."""
    for node in statements:
        if isinstance(node, ast.If | ast.While):
            _read(node.test, names)
            branches = names.copy(), names.copy()
            _walk(node.body, branches[0])
            _walk(node.orelse, branches[1])
            names.join(*branches)
        elif isinstance(node, ast.For | ast.AsyncFor):
            _read(node.iter, names)
            _bind(_symbols(node.target), names)
            _walk(node.body + node.orelse, names)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                _read(item.context_expr, names)
                if item.optional_vars:
                    _bind(_symbols(item.optional_vars), names)
            _walk(node.body, names)
        elif isinstance(node, ast.Try | ast.TryStar):
            _try(node, names)
        elif isinstance(node, ast.Delete):
            names.used |= {target.id for target in node.targets if isinstance(target, ast.Name)} - names.bound - GIVEN
        else:
            _read(node, names)


def _try(node: ast.Try, names: _Names) -> None:
    """A handler starts with what was bound before the `try`."""
    branches = [names.copy() for _ in range(1 + len(node.handlers))]
    _walk(node.body + node.orelse, branches[0])
    for handler, branch in zip(node.handlers, branches[1:], strict=True):
        if handler.type:
            _read(handler.type, branch)
        own = {handler.name} - branch.bound
        branch.bound |= own
        _walk(handler.body, branch)
        branch.bound -= own  # Python forgets the exception's name again
    names.join(*branches)
    _walk(node.finalbody, names)


def _read(node: ast.AST, names: _Names) -> None:
    """Take in an expression or a simple statement: reading comes before binding."""
    symbols = _symbols(node)
    names.used |= symbols.used - names.bound
    names.later |= symbols.later
    names.imported |= symbols.imported
    _bind(symbols, names)


def _bind(symbols: _Names, names: _Names) -> None:
    names.bound |= symbols.bound
    names.maybe |= symbols.bound


def _symbols(node: ast.AST) -> _Names:
    """The names in one piece of code, as Python's own symbol table sees them."""
    names = _Names()

    def visit(table: symtable.SymbolTable, top: bool, later: bool) -> None:
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if top and (symbol.is_assigned() or symbol.is_imported()):
                names.bound.add(name)
            if top and symbol.is_imported():
                names.imported.add(name)
            if symbol.is_referenced() and (top or symbol.is_global()) and name not in GIVEN:
                (names.later if later else names.used).add(name)
        for child in table.get_children():
            at_once = child.get_type() == "class" or child.get_name() == "genexpr"
            visit(child, False, later or not at_once)

    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        names.used.add(node.target.id)
    statement = node if isinstance(node, ast.stmt) else ast.Expr(node)
    if isinstance(getattr(node, "ctx", None), ast.Store):  # the target of a `for` or a `with`
        statement = ast.Assign([node], ast.Constant(None), lineno=0)
    visit(symtable.symtable(ast.unparse(statement), "cell", "exec"), True, False)
    return names


def _changed(statements: list[ast.stmt], shown: ast.stmt | None) -> set[str]:
    """Names changed in place, outside of functions; `shown` is the cell's last statement, whose value is displayed."""
    found = set()
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.Assign | ast.Delete):
            targets = [part for target in node.targets for part in getattr(target, "elts", [target])]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            prints = isinstance(call.func, ast.Name) and call.func.id in ("print", "display")
            targets = [call.func]
            if node is not shown and not prints and call.args:  # the value is not used: called for its effect
                found.add(_root(call.args[0]))
        else:
            targets = []
        found |= {_root(target) for target in targets if not isinstance(target, ast.Name)}
        inner = [node, *getattr(node, "handlers", [])]
        for part in ("body", "orelse", "finalbody"):
            for block in inner:
                found |= _changed(getattr(block, part, []), shown)
    return found - {None}


def _root(node: ast.AST) -> str | None:
    """The name that `x[0].attr.method()` starts with."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None

# SPDX-License-Identifier: MIT
"""What type checkers are told of the extensions is what is there."""

import ast
import importlib.util
import pathlib
import unittest

import sofattn

FOLDER = pathlib.Path(sofattn.__file__).parent


def told(body):
    """{name: names of a class, or None} of a stub."""
    names = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = told(node.body)
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = None
        elif isinstance(node, ast.AnnAssign):
            names[node.target.id] = None
    return names


def public(names):
    return {n for n in names if not n.startswith("_") or n in ("__init__", "__version__")}


class Stubs(unittest.TestCase):
    def test_stubs_name_what_the_extensions_have_and_nothing_else(self):
        self.assertTrue((FOLDER / "py.typed").exists())
        for name in ("_core", "_hardware"):
            if importlib.util.find_spec(f"sofattn.{name}") is None:
                continue
            module = importlib.import_module(f"sofattn.{name}")
            names = told(ast.parse((FOLDER / f"{name}.pyi").read_text(encoding="utf-8")).body)
            self.assertEqual(public(names), public(vars(module)), name)
            for class_name, members in names.items():
                if members is not None:
                    there = vars(getattr(module, class_name))
                    self.assertEqual(
                        public(members) - {"__init__"}, public(there) - {"__init__"}, class_name
                    )

    def test_signatures_of_attention_and_attend_differ_only_in_what_they_attend_to(self):
        module = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
        functions = {n.name: n for n in ast.walk(module) if isinstance(n, ast.FunctionDef)}
        one = {a.arg: ast.dump(a.annotation) for a in functions["attention"].args.kwonlyargs}
        two = {a.arg: ast.dump(a.annotation) for a in functions["attend"].args.kwonlyargs}
        for of_arrays_only in ("codes", "k_scales", "v_scales"):
            del one[of_arrays_only]
        self.assertEqual(one, two)


if __name__ == "__main__":
    unittest.main()

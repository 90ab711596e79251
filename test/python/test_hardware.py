# SPDX-License-Identifier: MIT
"""sofattn.hardware is the report of sofattn-hw, by names, files or dicts."""

import importlib.util
import json
import os
import subprocess
import tempfile
import unittest

import sofattn

CHANGES = {"queries_count": 512, "keys_count": 512, "kept_share": 0.1}


@unittest.skipUnless(
    importlib.util.find_spec("sofattn._hardware"), "built without the hardware report"
)
class Hardware(unittest.TestCase):
    def test_cycles_of_every_stage_make_up_the_total(self):
        report = sofattn.hardware(changes=CHANGES)
        self.assertAlmostEqual(report["kept_share"], 0.1, delta=0.01)
        for name, stage in report["stages"].items():
            stalled = sum(s["stalled_cycles"] for s in stage["stalls"])
            parts = stage["busy_cycles"] + stage["idle_before_cycles"] + stage["idle_after_cycles"]
            self.assertEqual(parts + stalled, report["total_cycles"], name)

    def test_a_dict_a_file_and_changes_say_the_same(self):
        report = sofattn.hardware(changes=CHANGES)
        same = sofattn.hardware(workload={"base_name": "llama_7b_layer", **CHANGES})
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "w.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(CHANGES, file)
            third = sofattn.hardware("sofa_28nm", path)
        for other in (same, third):
            del other["workload_name"]  # of the file
        del report["workload_name"]
        self.assertEqual(report, same)
        self.assertEqual(report, third)

    def test_it_is_the_report_of_the_tool(self):
        tool = os.environ.get("SOFATTN_HW", "")
        if not os.path.isfile(tool):
            self.skipTest("sofattn-hw is not built")
        told = [f"--set={name}={value}" for name, value in CHANGES.items()]
        run = subprocess.run(
            [tool, "run", "--format", "json", *told], check=True, capture_output=True, text=True
        )
        self.assertEqual(json.loads(run.stdout), sofattn.hardware(changes=CHANGES))

    def test_more_is_slower(self):
        few = sofattn.hardware(changes=CHANGES)
        many = sofattn.hardware(changes={**CHANGES, "kept_share": 0.5})
        self.assertGreater(many["total_cycles"], few["total_cycles"])

    def test_what_is_no_description_is_refused(self):
        for arguments, error in (
            (dict(machine="nowhere"), ValueError),
            (dict(workload="nowhere.json"), ValueError),
            (dict(workload={"kept": 1}), ValueError),
            (dict(workload={"kept_share": "many"}), ValueError),
            (dict(machine={"base_name": 3}), ValueError),
            (dict(changes={"kept_share": 7}), ValueError),
            (dict(changes={"kept_share": ""}), ValueError),
            (dict(changes={"nowhere": 7}), ValueError),
            (dict(changes={"": 7}), ValueError),
            (dict(machine=7), TypeError),
            (dict(machine={"a": object()}), TypeError),
            (dict(machine="a\0b"), ValueError),
        ):
            with self.subTest(**{k: str(v) for k, v in arguments.items()}):
                with self.assertRaises(error):
                    sofattn.hardware(**arguments)


if __name__ == "__main__":
    unittest.main()

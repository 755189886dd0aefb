# SPDX-License-Identifier: Apache-2.0
"""Runs the checks of the charts and examples; an argument picks those whose name holds it."""

import sys

import harness
import rendering  # noqa: F401 - registers its checks
import admission  # noqa: F401
import guide  # noqa: F401
import examples  # noqa: F401

sys.exit(harness.run_all(sys.argv[1] if len(sys.argv) > 1 else ""))

"""Cells, the longest first, and what runs each."""

from __future__ import annotations

from typing import Any

from studies.density_formula import classifier, evidence, exact, generator, images, learned, paths, tokens
from studies.density_formula.config import Config
from studies.study import Cell, Context


def cells(config: Config) -> list[Cell]:
    """All cells."""
    parts = (exact, images, learned, paths, classifier, generator, tokens, evidence)
    return [cell for part in parts for cell in part.cells(config)]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """The rows of one cell; the column `part` says what a row is."""
    config = context.config
    runs = {
        "exact": lambda: exact.run(cell, config),
        "bias": lambda: exact.run_bias(cell, config),
        "path": lambda: paths.run(cell, config),
        "coverage": lambda: exact.run_coverage(cell, config),
        "network": lambda: learned.run(cell, context),
        "excess": lambda: learned.run_excess(config),
        "images": lambda: images.run(cell, context),
        "evidence": lambda: evidence.run(config),
        "classifier-mixtures": lambda: classifier.run_mixtures(cell, config),
        "classifier-images": lambda: classifier.run_images(cell, context),
        "tokens": lambda: tokens.run(cell, context),
        "generator": lambda: generator.run(cell, context),
    }
    return runs[cell.parameters["part"]]()

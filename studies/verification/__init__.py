"""Verification."""

from studies.verification.problem import Problem
from studies.verification.report import Report
from studies.verification.session import reproduce, verify
from studies.verification.tasks import TASKS, Case, Task, task

__all__ = ["TASKS", "Case", "Problem", "Report", "Task", "reproduce", "task", "verify"]

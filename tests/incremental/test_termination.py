"""SIGTERM ends a run by the way of errors, and everything is told of it."""

from __future__ import annotations

import os
import signal

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from weathermill.incremental import runner as runner_module
from weathermill.incremental.plan import NodePlan
from weathermill.incremental.runner import IncrementalRunner
from weathermill.incremental.termination import TerminationHook


def test_the_signal_raises_and_the_handler_that_was_there_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    hook = TerminationHook()
    hook.before_pipeline_run()
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert caught.value.code == 128 + signal.SIGTERM
    hook.after_pipeline_run()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_hangup_that_is_ignored_stays_ignored_as_nohup_asks():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hook = TerminationHook()
    try:
        hook.before_pipeline_run()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGHUP)
        hook.after_pipeline_run()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        hook.after_pipeline_run()
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("raised", "told"), [(SystemExit(143), 1), (KeyboardInterrupt(), 1), (ValueError(), 0)]
)
def test_those_who_can_be_are_told_of_an_interruption(monkeypatch, raised, told):
    class Hook:
        calls = 0

        def interrupted(self):
            self.calls += 1

    def fail():
        raise raised

    node = Node(fail, None, "out", name="fail")
    plan = [NodePlan(node, runs=True, reason="", fingerprints={}, parts={})]
    monkeypatch.setattr(runner_module, "plan_for", lambda *_: plan)
    manager, hook = _create_hook_manager(), Hook()
    manager.register(hook)
    with pytest.raises(type(raised)):
        IncrementalRunner().run(Pipeline([node]), DataCatalog({"out": MemoryDataset()}), manager)
    assert hook.calls == told

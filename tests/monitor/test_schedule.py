"""When a comparison is due: the arguments, and what they mean."""

import re

import numpy as np
import pytest
from lightning_cka import CKAMonitor
from lightning_cka.monitor.schedule import Schedule, parse_schedule


def due(every_n_train_steps, last=20):
    schedule = parse_schedule(None, every_n_train_steps, False)
    start = [0] if schedule.at_start else []
    return start + [step for step in range(1, last + 1) if schedule.is_due(step - 1, step)]


@pytest.mark.parametrize(
    ("argument", "steps"),
    [
        (7, [7, 14]),
        (np.int64(7), [7, 14]),
        ("log", [0, 1, 2, 4, 8, 16]),
        ([16, 0, 3, 3, 10**9], [0, 3, 16]),
        ((5,), [5]),
        (range(4, 9, 4), [4, 8]),
        (np.array([2, 4]), [2, 4]),
        ([0], [0]),
    ],
)
def test_the_steps_that_are_due(argument, steps):
    assert due(argument) == steps
    schedule = parse_schedule(None, argument, False)
    assert schedule.by_steps
    assert schedule.number_of_steps(0, 20) == len([step for step in steps if step])
    assert schedule.first_step == next((step for step in steps if step), None)
    assert not any(map(schedule.is_due_epoch, range(9)))


@pytest.mark.parametrize("argument", [6, "log", [3, 4, 6]])
def test_a_step_that_several_optimizers_pass_over_is_due_once(argument):
    schedule = parse_schedule(None, argument, False)
    passed = [now for now in range(4, 24, 4) if schedule.is_due(now - 4, now)]
    assert (
        passed
        == {6: [8, 12, 20], "log": [4, 8, 16], (3, 4, 6): [4, 8]}[
            tuple(argument) if isinstance(argument, list) else argument
        ]
    )


def test_epochs_are_the_default():
    assert parse_schedule(None, None, False) == Schedule()
    assert [epoch for epoch in range(6) if parse_schedule(3, None, False).is_due_epoch(epoch)] == [2, 5]
    assert not Schedule().by_steps
    assert parse_schedule(None, None, True).at_start


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_n_train_steps": 0}, ValueError, "every_n_train_steps must be at least 1, but is 0"),
        ({"every_n_train_steps": -5}, ValueError, "at least 1, but is -5"),
        ({"every_n_train_steps": [3, -1]}, ValueError, "at least 0, but is -1"),
        ({"every_n_train_steps": []}, ValueError, "is empty: pass at least one step"),
        ({"every_n_train_steps": "linear"}, ValueError, "must be a number, some steps or 'log', but is 'linear'"),
        ({"every_n_train_steps": 2.5}, TypeError, "must be an integer, but is 2.5"),
        ({"every_n_train_steps": [1, 2.5]}, TypeError, "must be an integer, but is 2.5"),
        ({"every_n_train_steps": True}, TypeError, "must be an integer, some integers or 'log', but has True"),
        ({"every_n_train_steps": [False, 4]}, TypeError, "but has False"),
        ({"every_n_train_steps": 5, "every_n_epochs": 1}, ValueError, "pass one of them"),
        ({"every_n_epochs": 0}, ValueError, "every_n_epochs must be at least 1, but is 0"),
        ({"compare_at_start": 1}, TypeError, "compare_at_start must be True or False, but is 1"),
        (
            {"reference": ["initial", 2], "every_n_train_steps": 5},
            ValueError,
            "epoch 2 cannot be a reference: with every_n_train_steps=5, the model is compared after steps",
        ),
    ],
)
def test_wrong_arguments_say_what_is_expected(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        CKAMonitor(**arguments)


def test_a_schedule_in_messages():
    texts = {4: "every_n_train_steps=4", "log": "every_n_train_steps='log'", (1, 2): "every_n_train_steps=[1, 2]"}
    for steps, text in texts.items():
        assert str(Schedule(None, steps)) == text
    assert str(Schedule(None, tuple(range(9)))) == "every_n_train_steps=[0, 1, 2, 3, 4, ...]"
    assert str(Schedule(3)) == "every_n_epochs=3"

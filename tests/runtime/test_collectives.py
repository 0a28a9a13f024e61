"""Communication between two processes (gloo, CPU), and without a process group."""

import json

import pytest
import torch
from forked_scripts import run_two_processes
from lightning_cka.runtime.collectives import (
    all_gather,
    all_gather_bool,
    all_gather_objects,
    all_reduce_sum,
    gather_objects,
    gather_rows,
    in_lockstep,
    synchronized_errors,
)
from torch import distributed as dist

CPU = torch.device("cpu")


def message_of(call):
    """The error that a call raises, as text."""
    try:
        call()
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def fail_on(failing_ranks, rank):
    with synchronized_errors(CPU, "open its files"):
        if rank in failing_ranks:
            raise OSError(f"rank {rank}")


def batches(rank, fails):
    yield from range(3 if rank == 0 else 1)
    if fails and rank == 1:
        raise OSError("no more")


def lockstep_of(rank, fails):
    """The batches that a process gets, and the error at the end."""
    found = []
    error = message_of(lambda: found.extend(in_lockstep(batches(rank, fails), CPU)))
    return found, error


def work(rank, folder):
    """What one of two processes gets from each function."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mine = torch.arange(3.0) + 10 * rank
    results = {
        "gathered": [each.tolist() for each in all_gather(mine, distributed=True)],
        "transposed": [each.tolist() for each in all_gather((mine[:, None] + mine).T[:, :2], distributed=True)],
        "rows": gather_rows(mine[:, None].expand(3, 2)[: 1 + 2 * rank], distributed=True).tolist(),
        "rows of one": gather_rows(mine[:, None][: 2 * rank], distributed=True).tolist(),
        "sum": all_reduce_sum(mine, distributed=True).tolist(),
        "alone": [each.tolist() for each in all_gather(mine, distributed=False)],
        "objects": gather_objects({"rank": rank}, distributed=True),
        "all objects": all_gather_objects({"rank": rank}),
        "bools": all_gather_bool(rank == 1, CPU),
        "errors": [message_of(lambda ranks=ranks: fail_on(ranks, rank)) for ranks in ((), (1,), (0, 1))],
        "lockstep": [lockstep_of(rank, fails) for fails in (False, True)],
    }
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_two_processes(work, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_every_process_gets_the_tensors_of_all_in_the_order_of_ranks(results):
    for each in results:
        assert each["gathered"] == [[0, 1, 2], [10, 11, 12]]
        assert each["transposed"] == [[[0, 1], [1, 2], [2, 3]], [[20, 21], [21, 22], [22, 23]]]
        assert each["rows"] == [[0, 0], [10, 10], [11, 11], [12, 12]]
        assert each["rows of one"] == [[10], [11]]
        assert each["sum"] == [10, 12, 14]
        assert each["bools"] == [False, True]
        assert each["all objects"] == [{"rank": 0}, {"rank": 1}]
    assert [each["alone"] for each in results] == [[[0, 1, 2]], [[10, 11, 12]]]


def test_only_the_first_process_gets_the_objects(results):
    assert [each["objects"] for each in results] == [[{"rank": 0}, {"rank": 1}], []]


def test_an_error_on_one_process_is_raised_on_all(results):
    first, second = (each["errors"] for each in results)
    assert first == [None, "RuntimeError: process 1 could not open its files; see its error", "OSError: rank 0"]
    assert second == [None, "OSError: rank 1", "OSError: rank 1"]


def test_every_process_gets_the_same_number_of_batches(results):
    first, second = (each["lockstep"] for each in results)
    assert first == [[[0, 1, 2], None]] * 2
    assert second == [[[0, None, None], None], [[0, None, None], "OSError: no more"]]


def test_without_a_process_group_there_is_one_process():
    assert all_gather(torch.ones(2), distributed=True)[0].tolist() == [1, 1]
    assert all_reduce_sum(torch.ones(2), distributed=True).tolist() == [1, 1]
    assert gather_objects("a", distributed=True) == all_gather_objects("a") == ["a"]
    assert list(in_lockstep(iter("ab"), CPU)) == ["a", "b"]
    with pytest.raises(OSError, match="rank 0"):
        fail_on((0,), 0)

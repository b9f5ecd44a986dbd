"""The memory of all requests: bodies are refused, decoded items wait."""

import asyncio

import pytest
from starlette.exceptions import HTTPException

from anymodal.serve.budget import MemoryBudget


def test_decoded_items_wait_in_their_order_and_bodies_are_refused():
    async def play():
        budget, order = MemoryBudget(10), []

        async def add(name, size):
            await budget.add_decoded(size)
            order.append(name)

        budget.add_body(4)
        await add("a", 6)
        with pytest.raises(HTTPException) as caught:
            budget.add_body(1)
        assert caught.value.status_code == 503
        budget.release(body=4)
        tasks = []
        for name, size in (("b", 6), ("c", 2), ("huge", 99), ("d", 1)):
            tasks.append(asyncio.create_task(add(name, size)))
            await asyncio.sleep(0)
        assert order == ["a"]  # c would fit, and waits for its turn
        for size, expected in ((6, "abc"), (6, "abc"), (2, ["a", "b", "c", "huge"])):
            budget.release(decoded=size)
            await asyncio.sleep(0.01)
            assert order == list(expected)
        tasks[-1].cancel()
        await asyncio.sleep(0.01)
        budget.release(decoded=99)
        assert (budget.bodies, budget.decoded) == (0, 0)

    asyncio.run(play())


def test_bodies_that_fill_the_budget_do_not_block_their_own_items():
    async def play():
        budget = MemoryBudget(10)
        budget.add_body(10)
        await asyncio.wait_for(budget.add_decoded(5), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(budget.add_decoded(5), 0.01)
        budget.release(decoded=5)
        await asyncio.wait_for(budget.add_decoded(5), 1)

    asyncio.run(play())

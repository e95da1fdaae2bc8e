"""Every block of commands in the pages is run by a test, or its title says why not."""

import ast
from functools import cache

import pytest

from tests.code_blocks import PLAYED, ROOT, STARTED, TITLES, Block, blocks

BLOCKS = list(blocks())


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page} {block.text.partition(chr(10))[0][:40]}")
def test_a_block_is_run_by_a_test_or_its_title_says_why_not(block: Block) -> None:
    if block.title:
        assert block.title in TITLES
    else:
        assert block.text in STARTED or (block.page, block.language) in PLAYED


@pytest.mark.parametrize("test", sorted({*PLAYED.values(), *STARTED.values()}))
def test_the_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions_of(file)


def test_every_page_and_command_that_is_listed_is_there() -> None:
    assert PLAYED.keys() <= {(block.page, block.language) for block in BLOCKS if not block.title}
    assert STARTED.keys() <= {block.text for block in BLOCKS}


def test_a_block_that_calls_aws_says_so() -> None:
    calling = [block for block in BLOCKS if block.language == "bash" and ("aws " in block.text or "sam " in block.text)]
    assert len(calling) > 20
    assert {block.title for block in calling} == {"Needs AWS", "Needs the AWS CLI"}

"""The playground in a real browser, against a running service: documents, rankings, refusals."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.async_api import expect

from tests.browser.conftest import PHONE, OpenPlayground
from tests.browser.playground import RANKED
from tests.browser.samples import PICTURES

PASSAGES = ["Close the file.", "Sort the list in ascending order and return None.", "A circle."]


async def test_a_sample_is_ranked_in_one_click(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    await playground.sample("Find a picture")

    names = await playground.names()
    assert names[:2] == ["two-red-circles.png", "A picture of two red circles."]
    assert len(names) == 13
    scores = await playground.scores()
    assert float(scores[0]) > 0.9
    await playground.expect_said("First: two-red-circles.png, score 0.9")


@pytest.mark.parametrize(
    ("title", "first"),
    [
        ("Change a picture", "two-blue-circles.png"),
        ("Find a page", "page-climate-forests.png"),
        ("Answer a question", "Sort the list in ascending order and return None."),
    ],
)
async def test_every_sample_is_ranked_visibly_right(
    open_playground: OpenPlayground, title: str, first: str
) -> None:
    playground = await open_playground()
    await playground.sample(title)
    assert (await playground.names())[0] == first


async def test_the_list_shows_what_the_service_answered(
    open_playground: OpenPlayground, client: httpx.Client
) -> None:
    playground = await open_playground()
    await playground.paste([*PASSAGES, "Return a new list, sorted."])
    await playground.ask("how do I sort a list")

    answer = client.post("/rerank", json=playground.sent[-1]).json()
    texts = playground.sent[-1]["documents"]
    assert await playground.names() == [texts[result["index"]] for result in answer["results"]]

    card = playground.page.locator(".card").first
    result = answer["results"][0]
    await expect(card).to_contain_text(f"{result['relevance_score']:.4f}")
    await expect(card).to_contain_text(
        f"logit {result['logit']:+.2f}".replace("-", "\N{MINUS SIGN}")
    )
    await expect(card).to_contain_text(f"{result['meta']['prompt_tokens']} tokens")


async def test_time_is_split_by_stage_and_cached_scores_are_marked(
    open_playground: OpenPlayground,
) -> None:
    playground = await open_playground()
    await playground.sample("Answer a question")
    await playground.rerank()

    await playground.page.get_by_text("Timings").click()
    stages = playground.page.get_by_role("list", name="Time by stage")
    await expect(stages).to_contain_text("parse")
    await expect(stages).to_contain_text("network")
    await expect(stages).to_contain_text("request rr-")
    assert await playground.page.get_by_text("cached", exact=True).count() == 5


async def test_changes_of_rank_are_shown_and_move(open_playground: OpenPlayground) -> None:
    for motion, moves in (("no-preference", True), ("reduce", False)):
        playground = await open_playground(reduced_motion=motion)
        await playground.page.evaluate(COUNT_ANIMATIONS)
        await playground.sample("Find a picture")
        await playground.ask("three green stars")

        first = playground.page.locator(".card").first
        await expect(first).to_contain_text("three-green-stars.png")
        await expect(first).to_contain_text("▲")
        assert (await playground.page.evaluate("animations") > 0) == moves


COUNT_ANIMATIONS = """() => {
  globalThis.animations = 0;
  const animate = Element.prototype.animate;
  Element.prototype.animate = function (...steps) {
    globalThis.animations += 1;
    return animate.apply(this, steps);
  };
}"""


async def test_a_folder_is_dropped_with_what_lies_in_it(
    open_playground: OpenPlayground, tmp_path: Path
) -> None:
    shapes = tmp_path / "shapes"
    (shapes / "more").mkdir(parents=True)
    for name in ("two-red-circles.png", "purple-ring.png"):
        (shapes / name).write_bytes((PICTURES / name).read_bytes())
    (shapes / "more" / "star.webp").write_bytes(webp())
    (shapes / "more" / "note.txt").write_text("A picture of two red circles.")
    (shapes / "more" / "sheet.pdf").write_text("%PDF")
    (shapes / ".hidden.png").write_bytes(webp())

    playground = await open_playground()
    await playground.drop(shapes)
    await playground.expect_documents(4)
    await expect(playground.page.locator("#notices")).to_contain_text("sheet.pdf")

    await playground.ask("two red circles")
    names = await playground.names()
    assert names[:2] == ["two-red-circles.png", "A picture of two red circles."]
    assert set(names[2:]) == {"purple-ring.png", "star.webp"}


def webp() -> bytes:
    file = BytesIO()
    with Image.open(PICTURES / "three-green-stars.png") as picture:
        picture.save(file, "WEBP")
    return file.getvalue()


async def test_a_folder_is_chosen(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    async with playground.page.expect_file_chooser() as chooser:
        await playground.page.get_by_role("button", name="Folder…").click()
    await (await chooser.value).set_files(PICTURES)
    await playground.expect_documents(len(list(PICTURES.glob("*.png"))))


async def test_a_picture_dropped_on_the_query_is_the_query(
    open_playground: OpenPlayground,
) -> None:
    playground = await open_playground()
    await playground.drop(PICTURES / "two-red-circles.png", on="#query-box")
    await playground.expect_said("two-red-circles.png is the query's picture")
    await playground.drop(PICTURES / "two-blue-circles.png", PICTURES / "purple-ring.png")
    await playground.expect_documents(2)
    await playground.ask("the same in blue")

    assert (await playground.names())[0] == "two-blue-circles.png"
    assert set(playground.sent[-1]["query"]) == {"text", "image"}
    await playground.page.get_by_role("button", name="Remove the query's picture").click()
    await playground.rerank()
    assert playground.sent[-1]["query"] == "the same in blue"


async def test_documents_are_edited_and_removed(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    page = playground.page
    await playground.paste(PASSAGES)
    await playground.ask("how do I sort a list")
    await page.get_by_role("button", name="Edit the text of A circle.").click()
    await page.get_by_label("Text of A circle.", exact=True).fill("Sort it with sorted().")
    await page.keyboard.press("Control+Enter")
    await expect(page.get_by_text("changed since")).not_to_be_visible(timeout=RANKED)
    assert "Sort it with sorted()." in await playground.names()
    assert playground.sent[-1]["documents"] == [*PASSAGES[:2], "Sort it with sorted()."]

    await page.get_by_role("button", name="Remove Close the file.").click()
    await playground.expect_documents(2)
    await expect(page.locator("#count")).to_have_text("2, changed since this ranking")
    await page.get_by_role("button", name="Remove all").click()
    await playground.expect_documents(0)


async def test_a_text_may_be_one_document_or_one_a_line(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    await playground.page.get_by_label("What the pasted text is").select_option("whole")
    await playground.paste(["First line,", "second line."])
    await playground.expect_documents(1)


async def test_options_and_instructions_are_sent(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    page = playground.page
    await playground.paste(PASSAGES)
    await page.get_by_role("combobox", name="Instruction", exact=True).select_option("NQ")
    await page.get_by_text("Options").click()
    await page.get_by_label("Results").fill("2")
    await page.get_by_label("Score cache").select_option("bypass")
    await playground.ask("how do I sort a list")

    sent = playground.sent[-1]
    assert sent["instruction"].startswith("Given a question, retrieve Wikipedia passages")
    assert (sent["top_n"], sent["cache"], sent["on_error"]) == (2, "bypass", "skip")
    assert len(await playground.scores()) == 2
    await expect(page.locator(".card").last).to_contain_text("below the number of results")

    await page.get_by_label("Instruction's text").fill("Find advice.")
    await playground.rerank()
    assert playground.sent[-1]["instruction"] == "Find advice."


async def test_bars_show_scores_or_logits(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    await playground.sample("Answer a question")
    widths = "bars => bars.map(bar => Number.parseFloat(bar.style.width))"
    bars = playground.page.locator(".bar i")
    scores = [100 * float(score) for score in await playground.scores()]
    assert await bars.evaluate_all(widths) == pytest.approx(scores, abs=0.01)

    await playground.page.get_by_text("Options").click()
    await playground.page.get_by_label("Bars show").select_option("logit")
    shown = await bars.evaluate_all(widths)
    assert (shown[0], shown[-1]) == (100, 0)
    assert shown == sorted(shown, reverse=True)


async def test_a_document_that_fails_is_named_and_the_rest_is_ranked(
    open_playground: OpenPlayground, torn: Path
) -> None:
    playground = await open_playground()
    await playground.sample("Find a picture")
    await playground.drop(torn)
    await playground.expect_documents(14)
    await playground.rerank()

    failed = playground.page.locator(".card.failed")
    await expect(failed).to_contain_text("documents[13].image")
    await expect(failed).to_contain_text("invalid_image")
    assert (await playground.names())[-1] == "torn.png"
    assert len(await playground.scores()) == 13
    await playground.expect_said("1 documents failed.")


async def test_a_refused_request_shows_its_place_and_id(
    open_playground: OpenPlayground, torn: Path
) -> None:
    playground = await open_playground()
    page = playground.page
    await playground.sample("Find a picture")
    await playground.drop(torn)
    await playground.expect_documents(14)
    await page.get_by_text("Options").click()
    await page.get_by_label("A bad document").select_option("fail")
    await playground.rerank()

    alert = page.locator(".notice.bad")
    await expect(alert).to_contain_text("documents[13].image")
    await expect(alert).to_contain_text("400 invalid_image")
    await expect(alert).to_contain_text("request rr-")
    await page.get_by_role("button", name="Show torn.png").click()
    await expect(page.locator(".card").filter(has_text="torn.png")).to_be_focused()

    # the ranking before it is still there, as an older one
    assert len(await playground.scores()) == 13
    await expect(page.locator("#count")).to_contain_text("changed since this ranking")


async def test_what_is_too_much_is_said_before_anything_is_sent(
    open_playground: OpenPlayground, tmp_path: Path
) -> None:
    playground = await open_playground()
    notices = playground.page.locator("#notices")
    await playground.rerank()
    await expect(notices).to_contain_text("Type a query")
    await expect(notices).to_contain_text("Add documents")

    await playground.drop(narrow(tmp_path))
    await playground.expect_documents(1)
    await playground.ask("a line")
    await expect(notices).to_contain_text("“narrow.png” is not of a size that is read")
    assert playground.sent == []


def narrow(folder: Path) -> Path:
    path = folder / "narrow.png"
    Image.new("RGB", (1_000, 2)).save(path)
    return path


async def test_a_large_picture_is_made_smaller_only_if_asked(
    open_playground: OpenPlayground, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (5_000, 3_300)).save(path)
    playground = await open_playground()
    await playground.drop(path, PICTURES / "purple-ring.png")
    await playground.expect_documents(2)
    await playground.ask("a black picture")
    await expect(playground.page.locator("#notices")).to_contain_text("3300 pixels")
    assert playground.sent == []

    await playground.page.get_by_role("button", name="Send smaller copies").click()
    await expect(playground.page.locator(".card").first).to_contain_text("large-", timeout=RANKED)
    await playground.rerank()
    assert len(await playground.scores()) == 2


async def test_a_request_that_takes_long_is_cancelled(open_playground: OpenPlayground) -> None:
    playground = await open_playground()
    await playground.paste(PASSAGES)
    await playground.page.get_by_label("Query", exact=True).fill("how do I sort a list")
    await playground.page.route("**/rerank", lambda route: None)  # a network that does not move
    await playground.page.keyboard.press("Control+Enter")
    await playground.page.get_by_role("button", name="Cancel").click()
    await playground.expect_said("Cancelled.")
    assert await playground.scores() == []


async def test_on_a_phone_the_ranking_comes_into_view(open_playground: OpenPlayground) -> None:
    playground = await open_playground(viewport=PHONE, reduced_motion="reduce")
    await playground.sample("Find a picture")
    await expect(playground.page.locator(".card").first).to_be_in_viewport()
    wide = "document.documentElement.scrollWidth"
    assert await playground.page.evaluate(wide) <= PHONE["width"]

"""What axe-core says of a page."""

from axe_playwright_python.sync_playwright import Axe


def accessible(page, within=None):
    """Fail for every fault that axe calls serious or critical.

    Args:
        page: of Playwright.
        within: a selector of the part that is looked at; None: the page.
    """
    found = Axe().run(page, context=within).response["violations"]
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not bad, [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in bad]

# Looks at a page of bicycle_report in a browser, in light and dark: there is no error, no request,
# and nothing that axe-core objects to. look.py PAGE DIRECTORY writes screenshots, to be looked at.
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

page_file, directory = sys.argv[1:3]
bad = 0
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    for scheme in "light", "dark":
        said = []
        page = browser.new_context(color_scheme=scheme,
                                   viewport={"width": 1180, "height": 900}).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:"))
                or said.append("asks for " + request.url))
        page.goto("file://" + page_file)
        page.screenshot(path=f"{directory}/page-{scheme}.png", full_page=True)
        # axe-core is a script, which the page allows none of
        page = browser.new_context(color_scheme=scheme, bypass_csp=True).new_page()
        page.goto("file://" + page_file)
        found = Axe().run(page).response
        said += [f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:200]}"
                 for v in found["violations"]]
        if not found["passes"]:
            said.append("axe-core has looked at nothing")
        print(f"{'not ' if said else ''}ok - {scheme}: {len(found['passes'])} rules hold", *said,
              sep="\n#   ")
        bad += bool(said)
    browser.close()
sys.exit(bad > 0)

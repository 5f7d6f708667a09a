"""The site, made by `make site`: Sphinx and its extensions, of which four are ours, in _site."""

import sys
import tomllib
from pathlib import Path

import cptlib

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_site"))

_project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
repository = _project["urls"]["Repository"]
_owner, _name = repository.split("/")[-2:]

project = _name
copyright = f"the {_name} authors, Apache-2.0"
release = cptlib.__version__
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_codeautolink",
    "sphinx_copybutton",
    "sphinxext.opengraph",
    "sphinxfeed",
    "notfound.extension",
    "mathml",
    "posts",
    "reference",
    "llms",
]
include_patterns = [
    "[0-9]*.ipynb",
    "*.md",
    "api/*.md",
]  # and nothing that a run of a notebook leaves here
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}

# The notebooks: shown as committed
nb_execution_mode = "off"
nb_output_stderr = "remove"
nb_code_prompt_show = "Show the code: set-up"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "deflist",
    "dollarmath",
]
myst_heading_anchors = 3

# The library's reference
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings write code in single backticks
codeautolink_concat_default = True  # the cells of a notebook are one program
codeautolink_autodoc_inject = False

# The pages
html_theme = "furo"
html_title = _name
html_baseurl = f"https://{_owner}.github.io/{_name}/"
html_static_path = ["_site/static"]
templates_path = ["_site/templates"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = "_site/static/favicon.svg"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "source_repository": repository,
    "source_branch": "main",
    "source_directory": "notebooks/",
    "top_of_page_buttons": [],
    "light_css_variables": {
        "color-brand-primary": "#00578a",
        "color-brand-content": "#00578a",
        "color-code-background": "#f6f8fa",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc4f0",
        "color-brand-content": "#7cc4f0",
        "color-code-background": "#1b1d20",
    },
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "github-dark"
copybutton_selector = (
    "div.highlight-python pre, div.highlight-ipython3 pre, div.highlight-sh pre"
)
notfound_urls_prefix = f"/{_name}/"
notfound_context = {
    "title": "Page not found",
    "body": f'<h1>Page not found</h1><p>There is nothing at this address. Begin at <a href="/{_name}/">the front page</a>, '
    f'or <a href="/{_name}/search.html">search</a>.</p>',
}

ogp_site_url = html_baseurl
ogp_description_length = 240
ogp_social_cards = {
    "line_color": "#0072B2",
    "font": "DejaVu Sans",
    "image_mini": "_site/icon.png",
}

feed_base_url = html_baseurl
feed_author = f"the {_name} authors"
feed_description = _project["description"]
feed_field_name = "date"
feed_filename = "feed.xml"
feed_use_atom = True

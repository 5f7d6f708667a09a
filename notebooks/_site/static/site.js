// What scrolls sideways must be within reach of the keyboard.
const scrolling = "pre, .table-wrapper, .cell_output .text_html";
const mark = () => document.querySelectorAll(scrolling).forEach((box) => {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
});
mark();
addEventListener("resize", mark);

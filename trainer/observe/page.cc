// Markup and style of pages.
#include "trainer/observe/page.h"

#include "absl/strings/str_cat.h"
#include "trainer/observe/svg.h"

namespace shoestring {
namespace {

constexpr const char* kStyle =
    ":root{color-scheme:light dark}\n"
    "body{margin:0;background:#fff;color:#1c2329;font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,"
    "\"DejaVu Sans\",sans-serif}\n"
    "main{max-width:1180px;margin:0 auto;padding:28px 24px 56px}\n"
    "header{display:flex;flex-wrap:wrap;gap:12px;align-items:center}h1{font-size:24px;margin:0;overflow-wrap:anywhere}"
    "\n"
    "h2{font-size:16px;margin:34px 0 10px}p{margin:8px 0;max-width:75ch}\n"
    ".status{font-size:13px;font-weight:600;padding:2px 10px;border-radius:11px;background:#e0f2ea;color:#0d5f45}\n"
    ".status.bad{background:#fbe4e2;color:#94221f}\n"
    ".quiet{color:#5a6672;font-size:13px}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(165px,1fr));gap:12px;margin:20px 0}\n"
    ".tile{border:1px solid #e1e6ea;border-radius:8px;padding:10px 14px}.tile b{display:block;font-size:21px;"
    "font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}\n"
    ".tile span,.tile i{font-size:12px;color:#5a6672;font-style:normal}.tile i{font-weight:400;display:block}\n"
    ".charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(460px,100%),1fr));gap:26px 32px;"
    "align-items:start}.charts figure{margin:0;max-width:720px}\n"
    "pre{background:#f5f7f9;border-radius:8px;padding:12px 14px;overflow-x:auto;font:12.5px/1.5 ui-monospace,"
    "\"DejaVu Sans Mono\",Menlo,monospace;margin:0}\n"
    "details{margin:10px 0}summary{cursor:pointer;font-weight:600;margin-bottom:8px}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}"
    "th,td{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid #e4e8ec;font-weight:400;white-space:nowrap}"
    "th:first-child{text-align:left;color:#5a6672}thead th{font-weight:600}\n"
    "@media screen and (prefers-color-scheme:dark){body{background:#14181c;color:#e3e9ee}.tile{border-color:#2c343b}"
    ".tile span,.tile i,.quiet,th:first-child{color:#a3afba}pre{background:#1d2328}th,td{border-color:#2c343b}"
    ".status{background:#143a2d;color:#7fdcb8}.status.bad{background:#4a1d1c;color:#f5a9a4}}\n"
    "@media print{main{max-width:none;padding:0}.charts{grid-template-columns:1fr 1fr}figure,.tile,tr{break-inside:"
    "avoid}pre{white-space:pre-wrap}h2{break-after:avoid}}\n";

}  // namespace

std::string PageOpen(absl::string_view title, absl::string_view status, bool is_bad) {
  const std::string name = EscapeMarkup(title);
  std::string html = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"/>\n<title>",
      name, "</title>\n<style>\n", kStyle, ChartStyle(), "</style>\n</head>\n<body>\n<main>\n<header><h1>", name,
      "</h1>");
  if (!status.empty()) {
    absl::StrAppend(&html, "<span class=\"status", is_bad ? " bad" : "", "\">", EscapeMarkup(status), "</span>");
  }
  return html + "</header>\n";
}

std::string PageClose() { return "</main>\n</body>\n</html>\n"; }

std::string KeyFigures(const std::vector<KeyFigure>& figures) {
  std::string html = "<div class=\"tiles\">\n";
  for (const KeyFigure& tile : figures) {
    absl::StrAppend(&html, "<div class=\"tile\"><span>", EscapeMarkup(tile.caption), "</span><b>",
                    EscapeMarkup(tile.value));
    if (!tile.unit.empty()) absl::StrAppend(&html, "<i>", EscapeMarkup(tile.unit), "</i>");
    html += "</b></div>\n";
  }
  return html + "</div>\n";
}

std::string ChartGrid(const std::vector<std::string>& charts) {
  std::string html;
  for (const std::string& chart : charts) {
    if (!chart.empty()) absl::StrAppend(&html, "<figure>\n", chart, "</figure>\n");
  }
  return html.empty() ? html : absl::StrCat("<div class=\"charts\">\n", html, "</div>\n");
}

std::string Section(absl::string_view heading, absl::string_view html) {
  if (html.empty()) return "";
  return absl::StrCat("<section>\n<h2>", EscapeMarkup(heading), "</h2>\n", html, "</section>\n");
}

std::string Preformatted(absl::string_view text) {
  if (text.empty()) return "";
  // A parser drops the first line end of a <pre>: this one, and none of the text.
  return absl::StrCat("<pre tabindex=\"0\">\n", EscapeMarkup(text), "</pre>\n");
}

std::string Folded(absl::string_view caption, absl::string_view html) {
  if (html.empty()) return "";
  return absl::StrCat("<details><summary>", EscapeMarkup(caption), "</summary>\n", html, "</details>\n");
}

std::string HtmlTable(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (const std::string& cell : head) absl::StrAppend(&html, "<th scope=\"col\">", EscapeMarkup(cell), "</th>");
  html += "</tr></thead>\n<tbody>\n";
  for (const std::vector<std::string>& row : rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&html, i == 0 ? "<th scope=\"row\">" : "<td>", EscapeMarkup(row[i]), i == 0 ? "</th>" : "</td>");
    }
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table></div>\n";
}

}  // namespace shoestring

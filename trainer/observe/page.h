// The shell of an HTML page: one file, no script, nothing fetched; light, dark and paper.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace shoestring {

// From the doctype to the open <main>; ends with the heading. `status` may be empty; `is_bad` colours it.
std::string PageOpen(absl::string_view title, absl::string_view status, bool is_bad);
std::string PageClose();

// Figures with their captions, side by side.
struct KeyFigure {
  std::string caption;
  std::string value;
  std::string unit;
};
std::string KeyFigures(const std::vector<KeyFigure>& figures);

// Charts side by side where there is room.
std::string ChartGrid(const std::vector<std::string>& charts);

// Headed section around `html`; empty when `html` is.
std::string Section(absl::string_view heading, absl::string_view html);
// Text as it is, in a fixed width.
std::string Preformatted(absl::string_view text);
// Folded until clicked.
std::string Folded(absl::string_view caption, absl::string_view html);
// First cells of rows are their heads; other cells are set to the right.
std::string HtmlTable(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

}  // namespace shoestring

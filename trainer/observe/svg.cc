// Drawing of charts.
#include "trainer/observe/svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"

namespace shoestring {
namespace {

constexpr double kWidth = 560;
constexpr double kHeight = 270;
constexpr double kLeft = 56;
constexpr double kRight = 16;
constexpr double kBottom = 40;
constexpr double kTitleHeight = 26;
constexpr double kLegendHeight = 18;
constexpr double kCharacter = 6.2;  // mean width of one at 11 px; legends keep a distance that forgives
constexpr int kBuckets = 280;       // two points a unit of width are all that can be seen
constexpr int kColors = 8;

struct Range {
  double low = 0;
  double high = 1;
};

// One place of a digit after the point is a tenth of what can be seen.
std::string Number(double value) {
  std::string text = absl::StrFormat("%.1f", value);
  if (text.size() > 2 && text.substr(text.size() - 2) == ".0") text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

std::string Open(double height, const std::string& title, const std::string& description) {
  return absl::StrCat("<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 ",
                      Number(kWidth), " ", Number(height), "\"><title>", EscapeMarkup(title), "</title><desc>",
                      EscapeMarkup(description), "</desc>\n<text class=\"title\" x=\"0\" y=\"15\">",
                      EscapeMarkup(title), "</text>\n");
}

std::string Text(double x, double y, absl::string_view anchor, absl::string_view text, absl::string_view more = "") {
  return absl::StrCat("<text x=\"", Number(x), "\" y=\"", Number(y), "\" text-anchor=\"", anchor, "\"", more, ">",
                      EscapeMarkup(text), "</text>\n");
}

std::string Rule(absl::string_view kind, double x1, double y1, double x2, double y2) {
  return absl::StrCat("<line class=\"", kind, "\" x1=\"", Number(x1), "\" y1=\"", Number(y1), "\" x2=\"", Number(x2),
                      "\" y2=\"", Number(y2), "\"/>\n");
}

bool Drawable(double y, bool log_y) { return std::isfinite(y) && (!log_y || y > 0); }

// The range of all points, with some air; the unit range when there are none.
void FindRanges(const LineChart& chart, Range& x, Range& y) {
  bool any = false;
  for (const Series& series : chart.series) {
    for (size_t i = 0; i < series.x.size(); ++i) {
      if (!Drawable(series.y[i], chart.log_y)) continue;
      x = any ? Range{std::min(x.low, series.x[i]), std::max(x.high, series.x[i])} : Range{series.x[i], series.x[i]};
      y = any ? Range{std::min(y.low, series.y[i]), std::max(y.high, series.y[i])} : Range{series.y[i], series.y[i]};
      any = true;
    }
  }
  if (!any) {
    x = {0, 1};
    y = chart.log_y ? Range{1, 10} : Range{0, 1};
  }
  if (!IsWide(x.low, x.high)) x = {x.low - 0.5, x.high + 0.5};
  if (chart.log_y) {
    const double air = std::pow(y.high / y.low, 0.04);
    y = IsWide(y.low, y.high) ? Range{y.low / air, y.high * air} : Range{y.low / 2, y.high * 2};
    return;
  }
  if (chart.from_zero) y.low = std::min(0.0, y.low);
  if (!IsWide(y.low, y.high))
    y = {y.low - std::max(1e-9, std::abs(y.low) * 0.1), y.high + std::max(1e-9, std::abs(y.high) * 0.1)};
  const double air = 0.04 * (y.high - y.low);
  y.high += air;
  if (!chart.from_zero || y.low < 0) y.low -= air;
}

// Places points in the frame of a line chart.
class Frame {
 public:
  Frame(const LineChart& chart, double top) : log_y_(chart.log_y), top_(top), bottom_(kHeight - kBottom) {
    FindRanges(chart, x_, y_);
  }
  double X(double x) const { return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kRight - kLeft); }
  double Y(double y) const {
    const double part = log_y_ ? std::log(y / y_.low) / std::log(y_.high / y_.low) : (y - y_.low) / (y_.high - y_.low);
    return bottom_ - part * (bottom_ - top_);
  }

  std::string Axes(const LineChart& chart) const {
    std::string svg;
    const std::vector<double> ys = log_y_ ? LogTicks(y_.low, y_.high) : NiceTicks(y_.low, y_.high, 6);
    const double y_step = ys.size() > 1 ? ys[1] - ys[0] : 1.0;
    for (const double tick : ys) {
      svg += Rule("grid", kLeft, Y(tick), kWidth - kRight, Y(tick));
      // On a logarithmic axis each tick has as many digits as it needs itself.
      svg += Text(kLeft - 6, Y(tick) + 4, "end",
                  TickLabel(tick, log_y_ ? std::pow(10, std::floor(std::log10(tick))) : y_step));
    }
    const std::vector<double> xs = WholeTicks(x_.low, x_.high, 6);
    const double x_step = xs.size() > 1 ? xs[1] - xs[0] : 1.0;
    for (const double tick : xs) {
      svg += Rule("axis", X(tick), bottom_, X(tick), bottom_ + 4);
      svg += Text(X(tick), bottom_ + 16, "middle", TickLabel(tick, x_step));
    }
    svg += Rule("axis", kLeft, bottom_, kWidth - kRight, bottom_);
    svg += Text(kWidth - kRight, kHeight - 6, "end", chart.x_label);
    svg += Text(kWidth - kRight, 15, "end", chart.y_label);
    return svg;
  }

 private:
  const bool log_y_;
  const double top_;
  const double bottom_;
  Range x_, y_;
};

std::string Curve(const Series& series, const Frame& frame, bool log_y) {
  CHECK_EQ(series.x.size(), series.y.size());
  std::vector<double> x = series.x, y = series.y;
  Thin(kBuckets, x, y);
  std::string path, marks;
  bool pen_down = false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!Drawable(y[i], log_y)) {
      pen_down = false;
      continue;
    }
    const std::string px = Number(frame.X(x[i])), py = Number(frame.Y(y[i]));
    absl::StrAppend(&path, pen_down ? "L" : "M", px, " ", py);
    pen_down = true;
    if (series.points) {
      absl::StrAppend(&marks, "<circle class=\"f", series.color % kColors, "\" cx=\"", px, "\" cy=\"", py,
                      "\" r=\"2.6\"/>\n");
    }
  }
  if (path.empty()) return "";
  return absl::StrCat("<path class=\"line s", series.color % kColors, series.faint ? " faint" : "", "\" d=\"", path,
                      "\"/>\n", marks);
}

struct Legend {
  std::string svg;
  int lines = 0;
};

// Names beside swatches, wrapped to the width.
Legend MakeLegend(const std::vector<Series>& series) {
  Legend legend;
  double x = kLeft;
  for (const Series& s : series) {
    if (s.name.empty()) continue;
    const double width = 26 + kCharacter * static_cast<double>(s.name.size());
    if (legend.lines == 0 || x + width > kWidth) {
      x = kLeft;
      ++legend.lines;
    }
    const double y = kTitleHeight + kLegendHeight * legend.lines - 6;
    absl::StrAppend(&legend.svg, "<path class=\"line s", s.color % kColors, s.faint ? " faint" : "", "\" d=\"M",
                    Number(x), " ", Number(y - 4), "h14\"/>\n", Text(x + 18, y, "start", s.name));
    x += width + 6;
  }
  return legend;
}

}  // namespace

std::string RenderLineChart(const LineChart& chart) {
  const Legend legend = MakeLegend(chart.series);
  const Frame frame(chart, kTitleHeight + kLegendHeight * legend.lines + 6);
  std::string svg = Open(kHeight, chart.title, absl::StrCat(chart.y_label, " over ", chart.x_label));
  svg += frame.Axes(chart);
  for (const Series& series : chart.series) svg += Curve(series, frame, chart.log_y);
  return absl::StrCat(svg, legend.svg, "</svg>\n");
}

std::string RenderBarChart(const BarChart& chart) {
  constexpr double kRow = 24;
  double longest = 0, largest = 0, longest_value = 0;
  for (const Bar& bar : chart.bars) {
    longest = std::max(longest, kCharacter * static_cast<double>(bar.label.size()));
    longest_value = std::max(longest_value, kCharacter * static_cast<double>(bar.value_label.size()));
    largest = std::max(largest, bar.value);
  }
  const double left = std::min(longest + 12, kWidth / 2);
  const double room = kWidth - left - longest_value - 12;
  std::string svg = Open(kTitleHeight + kRow * static_cast<double>(chart.bars.size()) + 6, chart.title, chart.title);
  double y = kTitleHeight;
  for (const Bar& bar : chart.bars) {
    const double length = largest > 0 ? std::max(0.0, bar.value / largest * room) : 0.0;
    svg += Text(left - 8, y + 15, "end", bar.label);
    absl::StrAppend(&svg, "<rect class=\"f", bar.color % kColors, "\" x=\"", Number(left), "\" y=\"", Number(y + 4),
                    "\" width=\"", Number(length), "\" height=\"", Number(kRow - 9), "\" rx=\"2\"/>\n");
    svg += Text(left + length + 6, y + 15, "start", bar.value_label, " class=\"value\"");
    y += kRow;
  }
  return svg + "</svg>\n";
}

namespace {

// The scale below a heat map: its ends, and the steps between.
std::string HeatScale(const HeatMap& map, double y) {
  constexpr int kSteps = 10;
  constexpr double kStep = 12;
  const double left = kLeft + kCharacter * static_cast<double>(map.low_label.size()) + 6;
  std::string svg = Text(kLeft, y + 10, "start", map.low_label);
  for (int i = 0; i < kSteps; ++i) {
    absl::StrAppendFormat(&svg,
                          "<rect class=\"cell\" x=\"%s\" y=\"%s\" width=\"%s\" height=\"11\" fill-opacity=\"%.2f\"/>\n",
                          Number(left + kStep * i), Number(y), Number(kStep), static_cast<double>(i + 1) / kSteps);
  }
  return svg + Text(left + kStep * kSteps + 6, y + 10, "start", map.high_label);
}

}  // namespace

std::string RenderHeatMap(const HeatMap& map) {
  CHECK_EQ(map.row_labels.size(), map.values.size());
  const double rows = static_cast<double>(map.values.size());
  const double cell_height = std::clamp(180.0 / std::max(1.0, rows), 4.0, 22.0);
  const double height = cell_height * rows;
  const double width = kWidth - kLeft - kRight;
  std::string svg = Open(kTitleHeight + height + 46, map.title, map.x_label);
  absl::StrAppend(&svg, "<rect class=\"cells\" x=\"", Number(kLeft), "\" y=\"", Number(kTitleHeight), "\" width=\"",
                  Number(width), "\" height=\"", Number(height), "\"/>\n");
  const int label_stride = std::max(1, static_cast<int>(std::ceil(13.0 / cell_height)));
  for (size_t r = 0; r < map.values.size(); ++r) {
    const double y = kTitleHeight + cell_height * static_cast<double>(r);
    if (static_cast<int>(r) % label_stride == 0)
      svg += Text(kLeft - 6, y + cell_height / 2 + 4, "end", map.row_labels[r]);
    const std::vector<double>& row = map.values[r];
    const double cell_width = width / std::max<double>(1.0, static_cast<double>(row.size()));
    for (size_t c = 0; c < row.size(); ++c) {
      if (!std::isfinite(row[c])) continue;
      const double part = map.high > map.low ? std::clamp((row[c] - map.low) / (map.high - map.low), 0.0, 1.0) : 0.0;
      absl::StrAppendFormat(
          &svg, "<rect class=\"cell\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill-opacity=\"%.2f\"/>\n",
          kLeft + cell_width * static_cast<double>(c), y, cell_width, cell_height, part);
    }
  }
  const double below = kTitleHeight + height;
  svg += Text(kLeft, below + 14, "start", TickLabel(map.first_x, 1));
  svg += Text(kWidth - kRight, below + 14, "end", TickLabel(map.last_x, 1));
  svg += Text(kLeft + width / 2, below + 14, "middle", map.x_label);
  svg += HeatScale(map, below + 26);
  return svg + "</svg>\n";
}

}  // namespace shoestring

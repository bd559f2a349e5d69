// Charts as SVG text: lines, bars, heat maps. Equal input gives equal bytes; no script, no fonts, no files.
//
// Colours are classes, defined once a page by ChartStyle(), so that one chart serves a light page, a dark page and
// paper. Sizes are in the units of the view box; a page scales a chart to its width.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace shoestring {

// Style sheet for all charts of a page, light and dark.
std::string ChartStyle();

// For text and attribute values of HTML and XML; bytes that are no UTF-8, and control characters, become U+FFFD.
std::string EscapeMarkup(absl::string_view text);

// Whether numbers between the two can be told apart.
bool IsWide(double low, double high);
// At most about `count` round values (1, 2 or 5 times a power of ten) inside [low, high]; `low` alone if that is not
// wide.
std::vector<double> NiceTicks(double low, double high, int count);
// The same, whole numbers only; none where there is none. For steps and layers.
std::vector<double> WholeTicks(double low, double high, int count);
// Powers of ten inside [low, high], with their doubles and fivefolds where there are fewer than three. low > 0.
std::vector<double> LogTicks(double low, double high);
// "0", "0.25", "1.5k", "3e-04": short, and different for different ticks of one axis.
std::string TickLabel(double value, double step);

struct Series {
  std::string name;          // in the legend; empty: not there
  std::vector<double> x, y;  // of equal length, x ascending; points that are not finite break the line
  int color = 0;             // of eight, then again from the first
  bool faint = false;        // raw values behind a smoothed line
  bool points = false;       // a mark on each point
};

struct LineChart {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_y = false;  // points that are not positive break the line
  bool from_zero = false;
  std::vector<Series> series;
};
std::string RenderLineChart(const LineChart& chart);

struct Bar {
  std::string label;
  double value = 0;
  std::string value_label;  // beside the bar
  int color = 0;
};
struct BarChart {
  std::string title;
  std::vector<Bar> bars;  // from top to bottom; values not negative
};
std::string RenderBarChart(const BarChart& chart);

struct HeatMap {
  std::string title;
  std::string x_label;
  std::vector<std::string> row_labels;
  std::vector<std::vector<double>> values;  // [row][column]
  double low = 0, high = 1;                 // of the scale; values beyond are drawn as its ends
  std::string low_label, high_label;
  double first_x = 0, last_x = 0;  // what the first and the last column stand for
};
std::string RenderHeatMap(const HeatMap& map);

// At most 2 * `buckets` points of a series that keep its lowest and highest in each stretch.
void Thin(int buckets, std::vector<double>& x, std::vector<double>& y);
// Exponential moving average, corrected for its start; `span` steps of memory. Skips what is not finite.
std::vector<double> Smooth(const std::vector<double>& y, double span);

}  // namespace shoestring

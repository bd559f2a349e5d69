// From rows to series.
#include "trainer/observe/curves.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace shoestring {

Series CurveOf(const MetricsFile& metrics, std::optional<double> StepMetrics::*value, std::string name, int color) {
  Series series;
  series.name = std::move(name);
  series.color = color;
  for (const StepMetrics& row : metrics.rows) {
    if (!(row.*value).has_value()) continue;
    series.x.push_back(static_cast<double>(row.step));
    series.y.push_back(*(row.*value));
  }
  return series;
}

Series Smoothed(Series raw) {
  raw.y = Smooth(raw.y, std::max(5.0, static_cast<double>(raw.y.size()) / 100.0));
  return raw;
}

void AddRawAndSmooth(const Series& raw, LineChart& chart) {
  if (raw.x.empty()) return;
  Series faint = raw;
  faint.name.clear();
  faint.faint = true;
  chart.series.push_back(std::move(faint));
  chart.series.push_back(Smoothed(raw));
}

bool WantsLogarithm(const LineChart& chart) {
  double low = INFINITY, high = 0;
  for (const Series& series : chart.series) {
    for (const double y : series.y) {
      if (!std::isfinite(y)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
    }
  }
  return low > 0 && std::isfinite(low) && high > 30 * low;
}

}  // namespace shoestring

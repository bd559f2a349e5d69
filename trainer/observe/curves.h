// Curves of a run's metrics, as reports and comparisons draw them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/observe/step_metrics.h"
#include "trainer/observe/svg.h"

namespace shoestring {

// The rows where a value is known, over the steps.
Series CurveOf(const MetricsFile& metrics, std::optional<double> StepMetrics::*value, std::string name, int color);
// The same, smoothed over a hundredth of the run, but no less than five steps.
Series Smoothed(Series raw);
// Raw values faintly, then the smoothed curve, which has the name.
void AddRawAndSmooth(const Series& raw, LineChart& chart);
// True when the values are positive and span more than a factor of 30: a logarithmic axis shows them better.
bool WantsLogarithm(const LineChart& chart);

}  // namespace shoestring

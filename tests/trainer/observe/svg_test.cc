// Charts by their structure: ticks, escaping, points where they belong, well-formed XML.
#include "trainer/observe/svg.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/trainer/observe/markup.h"

namespace shoestring {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(TicksTest, AreRoundAndInside) {
  EXPECT_THAT(NiceTicks(0, 1, 5), ElementsAre(0, DoubleEq(0.2), DoubleEq(0.4), DoubleEq(0.6), DoubleEq(0.8), 1));
  EXPECT_THAT(NiceTicks(-3, 7, 5), ElementsAre(-2, 0, 2, 4, 6));
  EXPECT_THAT(NiceTicks(101, 599, 6), ElementsAre(200, 300, 400, 500));
  EXPECT_THAT(NiceTicks(5, 5, 4), ElementsAre(5));
  EXPECT_THAT(NiceTicks(5.9, std::nextafter(5.9, 6), 4), ElementsAre(5.9));  // one number, smoothed
  EXPECT_LE(NiceTicks(1e9, 1e9 * (1 + 2e-9), 4).size(), 6u);
  for (double low = -1; low < 1; low += 0.137) {
    for (double width = 1e-6; width < 1e9; width *= 3.7) {
      const std::vector<double> ticks = NiceTicks(low, low + width, 5);
      EXPECT_GE(ticks.size(), 2) << low << " + " << width;
      EXPECT_LE(ticks.size(), 6) << low << " + " << width;
    }
  }
}

TEST(TicksTest, LogarithmicOnesArePowersOfTen) {
  EXPECT_THAT(LogTicks(0.5, 2000), ElementsAre(1, DoubleEq(10), DoubleEq(100), DoubleEq(1000)));
  EXPECT_THAT(LogTicks(0.9, 11), ElementsAre(1, 2, 5, DoubleEq(10)));
}

TEST(TicksTest, LabelsAreShortAndDiffer) {
  EXPECT_EQ(TickLabel(0, 1), "0");
  EXPECT_EQ(TickLabel(0.25, 0.05), "0.25");
  EXPECT_EQ(TickLabel(0.5, 0.5), "0.5");
  EXPECT_EQ(TickLabel(600, 100), "600");
  EXPECT_EQ(TickLabel(9500, 500), "9500");
  EXPECT_EQ(TickLabel(12500, 500), "12.5k");
  EXPECT_EQ(TickLabel(2e6, 5e5), "2.0M");
  EXPECT_EQ(TickLabel(3e-4, 1e-4), "0.0003");
}

TEST(EscapeTest, MarkupAndDamagedTextAreHarmless) {
  EXPECT_EQ(EscapeMarkup("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
  EXPECT_EQ(EscapeMarkup("a\xff"
                         "b\x01"),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  EXPECT_EQ(EscapeMarkup("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82\n"), "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82\n");
  EXPECT_EQ(EscapeMarkup("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(ThinTest, KeepsEndsLowsAndHighs) {
  std::vector<double> x, y;
  for (int i = 0; i < 10000; ++i) {
    x.push_back(i);
    y.push_back(i == 5555 ? 100.0 : i == 7777 ? -100.0 : std::sin(i));
  }
  Thin(50, x, y);
  EXPECT_LE(x.size(), 100);
  EXPECT_EQ(x.size(), y.size());
  EXPECT_TRUE(std::is_sorted(x.begin(), x.end()));
  EXPECT_THAT(y, testing::Contains(100.0));
  EXPECT_THAT(y, testing::Contains(-100.0));
}

TEST(SmoothTest, KeepsConstantsAndStartsUnbiased) {
  EXPECT_THAT(Smooth({3, 3, 3}, 10), ElementsAre(DoubleEq(3), DoubleEq(3), DoubleEq(3)));
  const std::vector<double> smooth = Smooth({4, NAN, 2}, 2);
  EXPECT_DOUBLE_EQ(smooth[0], 4);
  EXPECT_DOUBLE_EQ(smooth[1], 4);
  EXPECT_DOUBLE_EQ(smooth[2], (0.5 * 2 + 0.25 * 4) / 0.75);
}

LineChart Chart() {
  LineChart chart{.title = "A <title>", .x_label = "step", .y_label = "nats", .series = {}};
  chart.series.push_back({.name = "one & only", .x = {0, 5, 10}, .y = {0, 10, 5}, .color = 3, .points = true});
  return chart;
}

TEST(LineChartTest, PlacesPointsAxesAndLegend) {
  const std::string svg = RenderLineChart(Chart());
  EXPECT_EQ(FindMarkupProblem(svg), "");
  EXPECT_THAT(svg, HasSubstr("role=\"img\""));
  EXPECT_THAT(svg, HasSubstr("<title>A &lt;title&gt;</title>"));
  EXPECT_THAT(svg, HasSubstr(">one &amp; only</text>"));
  EXPECT_EQ(CountOf("<circle class=\"f3\"", svg), 3);
  EXPECT_THAT(svg, HasSubstr("class=\"line s3\" d=\"M56 "));
  EXPECT_EQ(RenderLineChart(Chart()), svg);
}

TEST(LineChartTest, HalfALayerIsNoTick) {
  LineChart chart = Chart();
  chart.series[0] = {.name = "", .x = {0, 1.5, 2}, .y = {11, 12, 13}};
  EXPECT_THAT(RenderLineChart(chart), Not(HasSubstr(">0.5</text>")));
  EXPECT_THAT(WholeTicks(0, 2, 6), ElementsAre(0, 1, 2));
  EXPECT_THAT(WholeTicks(6.5, 7.5, 6), ElementsAre(7));
  EXPECT_THAT(WholeTicks(0, 60, 6), ElementsAre(0, 10, 20, 30, 40, 50, 60));
}

TEST(LineChartTest, GapsBreakTheLine) {
  LineChart chart = Chart();
  chart.series[0] = {.name = "", .x = {1, 2, 3, 4, 5}, .y = {1, 2, NAN, 4, 5}};
  EXPECT_EQ(CountOf("M", RenderLineChart(chart).substr(RenderLineChart(chart).find("class=\"line"))), 2);
  chart.log_y = true;
  chart.series[0].y = {1, 10, 0, 100, 1000};
  const std::string svg = RenderLineChart(chart);
  EXPECT_EQ(CountOf("M", svg.substr(svg.find("class=\"line"))), 2);
  EXPECT_THAT(svg, HasSubstr(">1k</text>"));
}

TEST(LineChartTest, HandlesNothingAndOnePoint) {
  LineChart chart = Chart();
  chart.series[0] = {.name = "x", .x = {}, .y = {}};
  EXPECT_EQ(FindMarkupProblem(RenderLineChart(chart)), "");
  chart.series[0] = {.name = "x", .x = {7}, .y = {0}};
  const std::string svg = RenderLineChart(chart);
  EXPECT_EQ(FindMarkupProblem(svg), "");
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(BarChartTest, LengthsAreInProportion) {
  const std::string svg =
      RenderBarChart({.title = "t", .bars = {{"a", 2, "2 s", 0}, {"b", 1, "1 s", 1}, {"none", 0, "0 s", 2}}});
  EXPECT_EQ(FindMarkupProblem(svg), "");
  const double a = NumberAfter("class=\"f0\"", "width=\"", svg);
  const double b = NumberAfter("class=\"f1\"", "width=\"", svg);
  EXPECT_GT(a, 100);
  EXPECT_NEAR(b, a / 2, 0.1);
  EXPECT_EQ(NumberAfter("class=\"f2\"", "width=\"", svg), 0);
}

TEST(HeatMapTest, EachValueIsACell) {
  HeatMap map;
  map.title = "t";
  map.row_labels = {"layer 1", "layer 2"};
  map.values = {{0, 1, 2}, {3, NAN, 0.5}};
  map.high = 2;
  const std::string svg = RenderHeatMap(map);
  EXPECT_EQ(FindMarkupProblem(svg), "");
  EXPECT_EQ(CountOf("class=\"cell\"", svg), 5 + 10);  // and the scale
  EXPECT_EQ(CountOf("fill-opacity=\"0.50\"", svg), 1 + 1);
  EXPECT_EQ(CountOf("fill-opacity=\"1.00\"", svg), 2 + 1);
}

TEST(ChartStyleTest, HasEveryColourInBothModes) {
  const std::string css = ChartStyle();
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(CountOf("svg.chart .s" + std::to_string(i) + "{", css), 2);
    EXPECT_EQ(CountOf("svg.chart .f" + std::to_string(i) + "{", css), 2);
  }
  EXPECT_EQ(CountOf("{", css), CountOf("}", css));
}

}  // namespace
}  // namespace shoestring

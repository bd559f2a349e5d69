// What charts share: escaping, ticks, thinning, smoothing, colours.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/observe/svg.h"

namespace shoestring {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

// Bytes of the UTF-8 character at the start of `text`; 0 when there is none (also for surrogates and overlong forms).
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const uint8_t second = byte(1);
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
      (first == 0xF4 && second > 0x8F)) {
    return 0;
  }
  const bool is_noncharacter = first == 0xEF && second == 0xBF && byte(2) >= 0xBE;  // U+FFFE and U+FFFF: not in XML
  return is_noncharacter ? 0 : length;
}

}  // namespace

bool IsWide(double low, double high) { return high - low > 1e-9 * std::max(std::abs(low), std::abs(high)); }

std::string EscapeMarkup(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const absl::string_view character = text.substr(0, std::max<size_t>(1, length));
    text.remove_prefix(character.size());
    const char c = character[0];
    if (length == 0) {
      out += kReplacement;
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else if (length == 1 && ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F)) {
      out += kReplacement;
    } else {
      absl::StrAppend(&out, character);
    }
  }
  return out;
}

std::vector<double> NiceTicks(double low, double high, int count) {
  if (count < 1 || !IsWide(low, high)) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10.0 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  const double slack = 1e-9 * (high - low);
  const double first = std::ceil((low - slack) / step);
  for (int i = 0; i <= count + 1; ++i) {
    const double tick = (first + i) * step;
    if (tick > high + slack) break;
    ticks.push_back(tick == 0.0 ? 0.0 : tick);  // never a negative zero
  }
  return ticks;
}

std::vector<double> WholeTicks(double low, double high, int count) {
  if (high - low >= count) return NiceTicks(low, high, count);
  std::vector<double> ticks;
  for (double tick = std::ceil(low); tick <= high; tick += 1.0) ticks.push_back(tick);
  return ticks;
}

std::vector<double> LogTicks(double low, double high) {
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(high)));
  const auto collect = [&](const std::vector<double>& factors, int stride) {
    std::vector<double> ticks;
    for (int e = first; e <= last; e += stride) {
      for (const double factor : factors) {
        const double tick = factor * std::pow(10.0, e);
        if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
      }
    }
    return ticks;
  };
  std::vector<double> ticks = collect({1.0}, std::max(1, (last - first) / 6));
  if (ticks.size() < 3) ticks = collect({1.0, 2.0, 5.0}, 1);
  return ticks.size() < 2 ? NiceTicks(low, high, 4) : ticks;
}

std::string TickLabel(double value, double step) {
  if (value == 0.0) return "0";
  const double size = std::abs(value);
  if (size < 1e-3 || size >= 1e13) return absl::StrFormat("%.3g", value);
  constexpr std::pair<double, const char*> kUnits[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [unit, name] : kUnits) {
    if (size >= unit * (1 - 1e-9) && (unit > 1e3 || size >= 1e4 || step >= 1e3)) {
      const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step / unit) - 1e-6)), 0, 3);
      return absl::StrFormat("%.*f%s", decimals, value / unit, name);
    }
  }
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-6)), 0, 6);
  return absl::StrFormat("%.*f", decimals, value);
}

void Thin(int buckets, std::vector<double>& x, std::vector<double>& y) {
  const size_t count = x.size();
  if (count <= static_cast<size_t>(2 * buckets)) return;
  std::vector<double> thin_x, thin_y;
  for (int b = 0; b < buckets; ++b) {
    const size_t begin = count * b / buckets;
    const size_t end = count * (b + 1) / buckets;
    size_t low = begin, high = begin;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(y[low]) || y[i] < y[low]) low = i;
      if (!std::isfinite(y[high]) || y[i] > y[high]) high = i;
    }
    for (const size_t i : {std::min(low, high), std::max(low, high)}) {
      if (!thin_x.empty() && thin_x.back() == x[i]) continue;
      thin_x.push_back(x[i]);
      thin_y.push_back(y[i]);
    }
  }
  x = std::move(thin_x);
  y = std::move(thin_y);
}

std::vector<double> Smooth(const std::vector<double>& y, double span) {
  const double keep = 1.0 - 1.0 / std::max(1.0, span);
  std::vector<double> smooth;
  double sum = 0.0, weight = 0.0;
  for (const double value : y) {
    if (std::isfinite(value)) {
      sum = keep * sum + (1.0 - keep) * value;
      weight = keep * weight + (1.0 - keep);
    }
    smooth.push_back(weight > 0.0 ? sum / weight : value);
  }
  return smooth;
}

std::string ChartStyle() {
  constexpr const char* kLight[] = {"#1f6fb4", "#c8570f", "#14805e", "#a23a78",
                                    "#6a55b0", "#7d6a00", "#b3322f", "#4d5a66"};
  constexpr const char* kDark[] = {"#62a8e8", "#f0914a", "#45bf97", "#de7fb8",
                                   "#a795ee", "#cdb444", "#f0817b", "#a6b3bf"};
  std::string css =
      "svg.chart{display:block;width:100%;height:auto;font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,"
      "\"DejaVu Sans\",sans-serif}\n"
      "svg.chart text{font-size:11px;fill:#5a6672}svg.chart .title{font-size:13px;font-weight:600;fill:#1c2329}\n"
      "svg.chart .value{fill:#1c2329}svg.chart .grid{stroke:#e4e8ec;stroke-width:1}svg.chart .axis{stroke:#a9b3bc;"
      "stroke-width:1}\n"
      "svg.chart .line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
      "svg.chart .faint{opacity:.32;stroke-width:1}svg.chart .cell{shape-rendering:crispEdges;fill:#c8570f}"
      "svg.chart .cells{fill:#f1f4f6}\n";
  for (int i = 0; i < 8; ++i) {
    absl::StrAppendFormat(&css, "svg.chart .s%d{stroke:%s}svg.chart .f%d{fill:%s}\n", i, kLight[i], i, kLight[i]);
  }
  css +=
      "@media screen and (prefers-color-scheme:dark){svg.chart text{fill:#a3afba}svg.chart .title,svg.chart .value"
      "{fill:#e8edf1}svg.chart .grid{stroke:#2c343b}svg.chart .axis{stroke:#5c6872}svg.chart .cells{fill:#20272d}"
      "svg.chart .cell{fill:#f0914a}\n";
  for (int i = 0; i < 8; ++i) {
    absl::StrAppendFormat(&css, "svg.chart .s%d{stroke:%s}svg.chart .f%d{fill:%s}\n", i, kDark[i], i, kDark[i]);
  }
  return css + "}\n";
}

}  // namespace shoestring

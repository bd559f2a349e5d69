// Boxes, an axis, a legend.
#include "parallel/pipeline/draw.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"

namespace shoestring {
namespace {

constexpr double kRowHeight = 26;
constexpr double kRowDistance = 32;
constexpr double kLeft = 96;
constexpr double kRight = 150;
constexpr double kTop = 84;
constexpr double kBottom = 40;
constexpr double kNarrowestBox = 20;  // of the shortest computation, if the picture stays below the next
constexpr double kWidestPlot = 2400;
constexpr double kNarrowestPlot = 480;
constexpr double kDigit = 6.4;  // width of one at 11 px

constexpr absl::string_view kStyle =
    "<style>\n"
    "svg{font-family:system-ui,sans-serif;font-size:12px;fill:#1d2733}.g{fill:#fff}\n"
    ".n{font-size:11px;text-anchor:middle}.l{fill:#10202c}.d{fill:#fff}.t{font-size:15px;font-weight:600}\n"
    ".r{fill:#edf0f3}.a{stroke:#8a96a3}.p{fill:none;stroke:#1d2733;stroke-width:1.6}.q{fill:#566372}\n"
    ".w{fill:#d6336c;opacity:.85}\n"
    "@media (prefers-color-scheme:dark){svg{fill:#dfe6ee}.g{fill:#12171d}.r{fill:#222a33}.p{stroke:#f4f7fa}"
    ".q{fill:#9aa7b5}}\n"
    "</style>\n";

struct Color {
  int red, green, blue;
};

// Of a kind of computation: for the first and for the last chunk of a position.
struct Tones {
  const char* label;
  Color light, dark;
};
constexpr Tones kForwardTones{"F forward", {153, 190, 245}, {38, 92, 186}};
constexpr Tones kBackwardTones{"B backward", {150, 214, 163}, {26, 122, 62}};
constexpr Tones kInputTones{"I input gradients", {128, 214, 208}, {0, 116, 120}};
constexpr Tones kWeightTones{"W weight gradients", {248, 205, 112}, {176, 104, 0}};

std::string Number(double value) {
  std::string text = absl::StrFormat("%.2f", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string Escape(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Fill(const Tones& tones, double tone) {
  const auto mix = [&](int light, int dark) { return static_cast<int>(std::lround(light + tone * (dark - light))); };
  return absl::StrFormat("#%02x%02x%02x", mix(tones.light.red, tones.dark.red),
                         mix(tones.light.green, tones.dark.green), mix(tones.light.blue, tones.dark.blue));
}

// A round step of the axis, about one in 80 px.
double AxisStep(double makespan_s, double scale) {
  const double wanted = std::max(80.0 / scale, makespan_s * 1e-6);
  const double power = std::pow(10.0, std::floor(std::log10(wanted)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= wanted) return factor * power;
  }
  return 10.0 * power;
}

class Drawing {
 public:
  Drawing(const Program& program, const Mesh& mesh, const Simulation& simulation)
      : program_(program), mesh_(mesh), simulation_(simulation), scale_(Scale()) {}

  std::string Run(absl::string_view title) {
    const double plot = simulation_.makespan_s * scale_;
    const double bottom = kTop + kRowDistance * static_cast<double>(program_.positions.size());
    const double width = kLeft + std::max(plot, kNarrowestPlot) + kRight, height = bottom + kBottom;
    absl::StrAppend(&svg_, "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"", Number(width),
                    "\" height=\"", Number(height), "\" viewBox=\"0 0 ", Number(width), " ", Number(height),
                    "\">\n<title>", Escape(title), "</title>\n", kStyle);
    Rectangle(0, 0, width, height, "class=\"g\"");
    Text("t", 12, 24, title);
    Text("q", 12, 43,
         absl::StrFormat("bubble %.1f %% of %s x %d", 100.0 * simulation_.bubble_share(),
                         Number(simulation_.makespan_s), program_.positions.size()));
    Legend(12, 54);
    for (size_t p = 0; p < program_.positions.size(); ++p) Row(static_cast<int>(p));
    Axis(bottom);
    absl::StrAppend(&svg_, "</svg>\n");
    return std::move(svg_);
  }

 private:
  // Pixels a unit of time.
  double Scale() const {
    double shortest_s = simulation_.makespan_s;
    for (size_t p = 0; p < program_.positions.size(); ++p) {
      for (size_t i = 0; i < program_.positions[p].size(); ++i) {
        const Simulation::Interval& interval = simulation_.positions[p].actions[i];
        const bool computes = TonesOf(program_.positions[p][i]) != nullptr;
        if (computes && interval.end_s > interval.start_s) {
          shortest_s = std::min(shortest_s, interval.end_s - interval.start_s);
        }
      }
    }
    if (simulation_.makespan_s <= 0.0) return 1.0;
    const double most = kWidestPlot / simulation_.makespan_s, least = kNarrowestPlot / simulation_.makespan_s;
    return std::clamp(kNarrowestBox / shortest_s, least, most);
  }

  static const Tones* TonesOf(const Action& action) {
    switch (action.kind) {
      case ActionKind::kForward:
      case ActionKind::kOverlapped: return &kForwardTones;
      case ActionKind::kBackward: return &kBackwardTones;
      case ActionKind::kBackwardInput: return &kInputTones;
      case ActionKind::kBackwardWeight: return &kWeightTones;
      default: return nullptr;
    }
  }

  // 0 for direction 0 or the first chunk of a position, 1 for direction 1 or the last.
  double ToneOf(int position, const Work& work) const {
    if (mesh_.directions() == 2) return work.direction.value;
    const std::vector<StageId> stages = mesh_.StagesAt(position);
    const auto place = std::find(stages.begin(), stages.end(), work.stage) - stages.begin();
    return stages.size() > 1 ? static_cast<double>(place) / static_cast<double>(stages.size() - 1) : 0.0;
  }

  void Text(absl::string_view classes, double x, double y, absl::string_view text) {
    absl::StrAppend(&svg_, "<text class=\"", classes, "\" x=\"", Number(x), "\" y=\"", Number(y), "\">", Escape(text),
                    "</text>\n");
  }

  // `hint` is what a pointer on it shows.
  void Rectangle(double x, double y, double width, double height, absl::string_view attributes,
                 absl::string_view hint = "") {
    absl::StrAppend(&svg_, "<rect x=\"", Number(x), "\" y=\"", Number(y), "\" width=\"", Number(width), "\" height=\"",
                    Number(height), "\" ", attributes);
    absl::StrAppend(&svg_, hint.empty() ? "/>\n" : absl::StrCat("><title>", Escape(hint), "</title></rect>\n"));
  }

  void Box(int position, const Work& work, const Tones& tones, const Simulation::Interval& interval, double y,
           double height) {
    const std::string hint = absl::StrCat(absl::string_view(tones.label, 1), ToString(work), ": ",
                                          Number(interval.start_s), " to ", Number(interval.end_s));
    const double tone = ToneOf(position, work);
    const double x = kLeft + interval.start_s * scale_, width = (interval.end_s - interval.start_s) * scale_;
    const double gap = width > 4 ? 0.5 : 0;
    Rectangle(x + gap, y, std::max(width - 2 * gap, 0.3), height,
              absl::StrCat("rx=\"1.5\" fill=\"", Fill(tones, tone), "\""), hint);
    const std::string number = absl::StrCat(work.micro_batch, work.direction.value == 1 ? "'" : "");
    if (kDigit * static_cast<double>(number.size()) > width - 3) return;
    Text(tone > 0.5 ? "n d" : "n l", x + width / 2, y + height / 2 + 4, number);
  }

  void Row(int position) {
    const double y = kTop + kRowDistance * position;
    const Simulation::Position& times = simulation_.positions[position];
    Rectangle(kLeft, y, simulation_.makespan_s * scale_, kRowHeight, "class=\"r\"");
    std::string stages = absl::StrJoin(mesh_.StagesAt(position), ",",
                                       [](std::string* out, StageId stage) { absl::StrAppend(out, stage.value); });
    Text("", 12, y + 12, absl::StrCat("position ", position));
    Text("q", 12, y + 25, absl::StrCat(mesh_.StagesAt(position).size() > 1 ? "stages " : "stage ", stages));
    for (size_t i = 0; i < times.actions.size(); ++i) {
      const Action& action = program_.positions[position][i];
      const Tones* tones = TonesOf(action);
      if (tones == nullptr) continue;
      const Simulation::Interval& interval = times.actions[i];
      if (action.kind == ActionKind::kOverlapped) {
        Box(position, action.work, kForwardTones, interval, y, kRowHeight / 2);
        Box(position, action.paired, kBackwardTones, interval, y + kRowHeight / 2, kRowHeight / 2);
        Rectangle(kLeft + interval.start_s * scale_ + 0.5, y, (interval.end_s - interval.start_s) * scale_ - 1,
                  kRowHeight, "class=\"p\"");
      } else {
        Box(position, action.work, *tones, interval, y, kRowHeight);
      }
    }
    for (const Simulation::Interval& wait : times.waits) {
      Rectangle(kLeft + wait.start_s * scale_, y + 3, std::max((wait.end_s - wait.start_s) * scale_, 0.3),
                kRowHeight - 6, "class=\"w\"",
                absl::StrCat("waits for another rank: ", Number(wait.start_s), " to ", Number(wait.end_s)));
    }
    const double x = kLeft + simulation_.makespan_s * scale_ + 10;
    Text("", x, y + 12, absl::StrCat("waits ", Number(simulation_.bubble_s(position))));
    Text("q", x, y + 25, absl::StrCat("at most ", times.most_live, " live"));
  }

  void Axis(double y) {
    const double end = simulation_.makespan_s;
    const double step = AxisStep(end, scale_);
    for (int i = 0; end > 0 && i * step <= end * (1 + 1e-9); ++i) {
      const std::string x = Number(kLeft + i * step * scale_);
      absl::StrAppend(&svg_, "<path class=\"a\" d=\"M", x, " ", Number(y), "v5\"/>\n");
      Text("n q", kLeft + i * step * scale_, y + 18, Number(i * step));
    }
  }

  void Legend(double x, double y) {
    const auto entry = [&](absl::string_view label) {
      Text("", x + 20, y + 11, label);
      x += 20 + 6.6 * static_cast<double>(label.size()) + 16;
    };
    for (const Tones* tones : {&kForwardTones, &kBackwardTones, &kInputTones, &kWeightTones}) {
      if (!Uses(*tones)) continue;
      Rectangle(x, y, 14, 14, absl::StrCat("rx=\"1.5\" fill=\"", Fill(*tones, 0.35), "\""));
      entry(tones->label);
    }
    if (UsesKind(ActionKind::kOverlapped)) {
      Rectangle(x, y, 14, 7, absl::StrCat("fill=\"", Fill(kForwardTones, 0.35), "\""));
      Rectangle(x, y + 7, 14, 7, absl::StrCat("fill=\"", Fill(kBackwardTones, 0.35), "\""));
      Rectangle(x, y, 14, 14, "class=\"p\"");
      entry("F and B overlapped");
    }
    if (std::any_of(simulation_.positions.begin(), simulation_.positions.end(),
                    [](const Simulation::Position& position) { return !position.waits.empty(); })) {
      Rectangle(x, y, 14, 14, "class=\"w\"");
      entry("waits for another rank");
    }
    const bool directions = mesh_.directions() == 2;
    const size_t chunks = directions ? 2 : mesh_.StagesAt(0).size();
    for (size_t c = 0; chunks > 1 && c < chunks; ++c) {
      const double tone = static_cast<double>(c) / static_cast<double>(chunks - 1);
      Rectangle(x, y, 14, 14, absl::StrCat("rx=\"1.5\" fill=\"", Fill(kForwardTones, tone), "\""));
      entry(absl::StrCat(directions ? "direction " : "chunk ", c));
    }
  }

  bool UsesKind(ActionKind kind) const {
    return std::any_of(program_.positions.begin(), program_.positions.end(), [&](const std::vector<Action>& actions) {
      return std::any_of(actions.begin(), actions.end(), [&](const Action& action) { return action.kind == kind; });
    });
  }
  bool Uses(const Tones& tones) const {
    if (&tones == &kForwardTones) return true;
    if (&tones == &kBackwardTones) return UsesKind(ActionKind::kBackward) || UsesKind(ActionKind::kOverlapped);
    return UsesKind(&tones == &kInputTones ? ActionKind::kBackwardInput : ActionKind::kBackwardWeight);
  }

  const Program& program_;
  const Mesh& mesh_;
  const Simulation& simulation_;
  const double scale_;
  std::string svg_;
};

}  // namespace

std::string DrawSimulation(const Program& program, const Mesh& mesh, const Simulation& simulation,
                           absl::string_view title) {
  CHECK_EQ(program.positions.size(), simulation.positions.size());
  return Drawing(program, mesh, simulation).Run(title);
}

}  // namespace shoestring

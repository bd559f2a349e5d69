// Names, configs and legality of layouts.
#include "tests/layouts/layout_case.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file_system.h"
#include "configs/load.h"
#include "google/protobuf/text_format.h"

namespace shoestring {
namespace {

const char* const kSchedules[] = {"gpipe", "one_f_one_b", "interleaved", "zb_h1", "zb_v", "dualpipe", "dualpipe_v"};
constexpr Split kSplits[] = {Split::kEven, Split::kZeros, Split::kLopsided};
constexpr int kTinyLayers = 4, kThinLayers = 16;
constexpr int kRanks = 8;

const char* Name(Split split) { return split == Split::kEven ? "even" : split == Split::kZeros ? "zeros" : "lopsided"; }
int LayersOf(const LayoutCase& c) { return c.recipe == "tiny_cpu" ? kTinyLayers : kThinLayers; }
int RoutedExperts(const LayoutCase& c) { return c.recipe == "tiny_cpu" ? 32 : 16; }
int RoutingGroups(const LayoutCase& c) { return c.recipe == "tiny_cpu" ? 8 : 4; }
// What so many data ranks, and two directions of each, can share.
int LanesFor(int data) { return data % 3 == 0 ? 6 : 8; }
bool Divides(int divisor, int number) { return number % divisor == 0; }

void MakeSmall(config::ModelConfig& model) {
  model.set_vocab_size(96);
  model.set_hidden(48);
  model.set_heads(2);
  model.set_dense_ffn(64);
  config::AttentionConfig& attention = *model.mutable_attention();
  attention.set_qk_nope_head_dim(16);
  attention.set_qk_rope_head_dim(8);
  attention.set_v_head_dim(16);
  attention.set_q_lora_rank(24);
  attention.set_kv_lora_rank(16);
  model.mutable_moe()->set_expert_ffn(24);
}

void SetLayout(const LayoutCase& c, config::LayoutConfig& layout) {
  layout.Clear();
  std::string text = absl::StrCat(c.schedule, c.schedule == "interleaved" ? " { chunks: 2 }" : " {}");
  if (c.hop_node > 0) absl::StrAppend(&text, " exchange { path: TWO_HOP } ranks_per_node: ", c.hop_node);
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &layout));
  layout.set_threads_per_rank(1);
  layout.set_pipeline_ranks(c.pipeline);
  layout.set_stages(c.stages());
  layout.set_data_ranks(c.data);
  layout.set_expert_ranks(c.experts);
  layout.set_zero1(c.zero1);
  for (int layers : c.LayersPerStage()) layout.add_layers_per_stage(layers);
}

}  // namespace

int LayoutCase::stages() const {
  const bool two = schedule == "interleaved" || schedule == "zb_v" || schedule == "dualpipe_v";
  return two ? 2 * pipeline : pipeline;
}

std::vector<int> LayoutCase::LayersPerStage() const {
  const int count = stages(), layers = LayersOf(*this);
  if (split == Split::kEven || count == 1) return {};
  std::vector<int> split_layers(count, 0);
  int left = layers;
  if (split == Split::kZeros) {
    for (int s = 1; left > 0; s = s + 2 < count ? s + 2 : 1, --left) ++split_layers[s];
    return split_layers;
  }
  const int last = count > 2 ? count - 2 : count - 1;
  for (int s = last; s > 0 && left > 2; --s, --left) split_layers[std::min(s, layers - 2)] = 1;
  split_layers[0] = layers;
  for (int s = 1; s < count; ++s) split_layers[0] -= split_layers[s];
  return split_layers;
}

std::string LayoutCase::NumericsName() const {
  return absl::StrCat(recipe, "/", mode, "/mtp", mtp ? 1 : 0, "/L", lanes, "/G", expert_lanes);
}

std::string LayoutCase::Name() const {
  return absl::StrCat(NumericsName(), "/P", pipeline, ".", schedule, "/D", data, "/E", experts, zero1 ? "/zero1" : "",
                      "/", shoestring::Name(split), recompute ? "/recompute" : "",
                      hop_node > 0 ? absl::StrCat("/two_hop", hop_node) : "");
}

LayoutCase OneRank(const LayoutCase& c) {
  LayoutCase one = c;
  one.pipeline = one.experts = 1;
  one.data = 1;
  one.schedule = "one_f_one_b";
  one.hop_node = 0;
  one.zero1 = one.recompute = false;
  one.split = Split::kEven;
  return one;
}

// The law as docs/numerics.md ("Layout and lanes", "Order of sums" rule 2) and docs/expert_exchange.md say it.
std::string RefusedField(const LayoutCase& c) {
  if (!Divides(c.expert_lanes, c.lanes)) return "train.expert_lanes";
  if (!Divides(c.data * c.directions(), c.lanes)) return "layout.data_ranks";
  if (!Divides(c.experts, c.data) || !Divides(c.experts, RoutedExperts(c))) return "layout.expert_ranks";
  if (!Divides(c.expert_lanes, c.group_lanes())) return "layout.expert_ranks";
  if (c.hop_node > 0) {
    if (c.world() > c.hop_node && !Divides(c.hop_node, c.world())) return "layout.ranks_per_node";
    if (!Divides(c.hop_node, c.experts)) return "layout.exchange.path";
    if (!Divides(c.experts, RoutingGroups(c) * c.hop_node)) return "layout.exchange.path";
  }
  if (c.split == Split::kEven && c.stages() > LayersOf(c)) return "layout.stages";
  if (c.schedule == "dualpipe" && !Divides(2, c.pipeline)) return "layout.dualpipe";
  if (c.schedule == "interleaved" && !Divides(c.pipeline, c.lanes * kWaves / c.data)) return "layout.interleaved";
  return "";
}

config::RunConfig RecipeConfig(const LayoutCase& c, Widths widths) {
  std::vector<std::string> files = {absl::StrCat("configs/recipes/", c.recipe, ".textproto")};
  if (c.mode == "FP8") files.push_back("configs/presets/fp8_v3.textproto");
  absl::StatusOr<config::LoadedConfig> loaded = config::LoadConfig(PosixFileSystem(), files, {});
  CHECK(loaded.ok());
  config::RunConfig config = loaded->config;
  if (c.mode == "FP32") {
    config.mutable_precision()->set_mode(config::PrecisionConfig::FP32);
    config.mutable_precision()->set_moments(config::PrecisionConfig::MOMENTS_FP32);
  }
  if (widths == Widths::kMedium && c.recipe == "tiny_cpu") {
    config.mutable_model()->set_dense_ffn(config.model().dense_ffn() / 4);
    config.mutable_model()->mutable_moe()->set_expert_ffn(config.model().moe().expert_ffn() / 4);
  } else if (widths == Widths::kSmall) {
    MakeSmall(*config.mutable_model());
  }
  if (!config.train().has_ema()) config.mutable_train()->mutable_ema()->set_decay(0.9);
  config::Phase& phase = *config.mutable_train()->mutable_phase(0);
  phase.set_micro_batch(1);
  phase.set_sequence_length(widths == Widths::kSmall ? 12 : 16);
  config.mutable_data()->set_validation_prefix("data/validation");
  config.mutable_train()->mutable_validation()->set_interval_steps(100);
  config.mutable_train()->mutable_validation()->set_sequences(kValidationSequences);
  return config;
}

void Apply(const LayoutCase& c, config::RunConfig& config) {
  config.mutable_model()->set_mtp_depth(c.mtp ? 1 : 0);
  if (!c.mtp) config.mutable_train()->clear_mtp_weight();
  config.mutable_train()->set_lanes(c.lanes);
  config.mutable_train()->set_expert_lanes(c.expert_lanes);
  config.mutable_train()->mutable_phase(0)->mutable_batch()->set_sequences(c.lanes * kWaves);
  SetLayout(c, *config.mutable_layout());
  config::RecomputeConfig& recompute = *config.mutable_recompute();
  recompute.set_norms(c.recompute);
  recompute.set_mla_up(c.recompute);
  recompute.set_swiglu(c.recompute);
}

std::vector<LayoutCase> AllShapes() {
  std::vector<LayoutCase> all;
  LayoutCase c;
  const auto of_ranks = [&] {
    for (Split split : kSplits) {
      for (int g : {1, 2, 3, 4, 5, 6, 8}) {
        for (int node : {0, 2, 3, 4, 8}) {
          c.split = split;
          c.expert_lanes = g;
          c.hop_node = node;
          all.push_back(c);
        }
      }
    }
  };
  for (const char* recipe : {"tiny_cpu", "thin_16layer"}) {
    for (const char* schedule : kSchedules) {
      for (int pipeline : {1, 2, 3, 4, 8}) {
        for (int data : {1, 2, 3, 4, 5, 8}) {
          for (int experts : {1, 2, 3, 4, 8}) {
            if (pipeline * data > kRanks) continue;
            c.recipe = recipe;
            c.schedule = schedule;
            c.pipeline = pipeline;
            c.data = data;
            c.lanes = LanesFor(data);
            c.experts = experts;
            of_ranks();
          }
        }
      }
    }
  }
  return all;
}

std::vector<std::string> Values(const LayoutCase& c) {
  const bool production = c.expert_lanes == c.group_lanes() && c.lanes == c.data * c.directions();
  return {c.recipe,
          c.mode,
          absl::StrCat("mtp", c.mtp),
          c.expert_lanes == 1 ? "G alone"
          : production        ? "G production"
                              : "G several",
          absl::StrCat("P", c.pipeline),
          c.schedule,
          absl::StrCat("D", c.data),
          absl::StrCat("E", c.experts),
          absl::StrCat("hop", c.hop_node),
          absl::StrCat("zero", c.zero1),
          Name(c.split),
          absl::StrCat("recompute", c.recompute)};
}

namespace {

class Drawer {
 public:
  explicit Drawer(uint64_t seed) : random_(seed) {}

  // The best of some: whoever shows most pairs that nobody has shown.
  LayoutCase Next() {
    LayoutCase best;
    size_t most = 0;
    for (int i = 0; i < kCandidates; ++i) {
      const LayoutCase candidate = Legal();
      const size_t fresh = Fresh(candidate);
      if (i > 0 && fresh <= most) continue;
      best = candidate;
      most = fresh;
    }
    ForEachPair(best, [&](const std::string& pair) { shown_.insert(pair); });
    names_.insert(best.Name());
    return best;
  }

 private:
  static constexpr int kCandidates = 60;

  template <typename T>
  T Any(std::initializer_list<T> values) {
    return *(values.begin() + random_() % values.size());
  }
  LayoutCase Legal() {
    while (true) {
      LayoutCase c;
      c.recipe = Any<const char*>({"tiny_cpu", "thin_16layer"});
      c.mode = Any<const char*>({"FP32", "BF16", "FP8"});
      c.mtp = random_() % 2 == 0;
      c.schedule = kSchedules[random_() % std::size(kSchedules)];
      c.pipeline = Any({1, 2, 2, 4, 8});
      c.data = Any({1, 2, 3, 4, 8});
      c.lanes = LanesFor(c.data);
      c.experts = Any({1, 2, 4, 8});
      c.hop_node = c.experts > 2 ? Any({0, 2, 4}) : 0;
      c.expert_lanes = Any({1, 2, 4, 8, 3, 6});
      c.zero1 = random_() % 2 == 0;
      c.split = kSplits[random_() % std::size(kSplits)];
      c.recompute = random_() % 2 == 0;
      const bool is_one = c.world() == 1 && c.schedule == "one_f_one_b";
      const bool two_hop_is_one = c.hop_node >= c.experts && c.hop_node > 0;
      if (c.world() > kRanks || is_one || two_hop_is_one || names_.contains(c.Name())) continue;
      if (RefusedField(c).empty()) return c;
    }
  }
  static void ForEachPair(const LayoutCase& c, const std::function<void(const std::string&)>& call) {
    const std::vector<std::string> values = Values(c);
    for (size_t i = 0; i < values.size(); ++i) {
      for (size_t j = 0; j < i; ++j) call(absl::StrCat(values[i], "+", values[j]));
    }
  }
  size_t Fresh(const LayoutCase& c) const {
    size_t fresh = 0;
    ForEachPair(c, [&](const std::string& pair) { fresh += shown_.contains(pair) ? 0 : 1; });
    return fresh;
  }

  std::mt19937_64 random_;
  std::set<std::string> shown_, names_;
};

}  // namespace

std::vector<LayoutCase> Draw(uint64_t seed, int count) {
  Drawer drawer(seed);
  std::vector<LayoutCase> cases;
  for (int i = 0; i < count; ++i) cases.push_back(drawer.Next());
  return cases;
}

}  // namespace shoestring

// The probe on a model of kilobytes: exact where nothing is rounded, silent in what it computes, and the judge of
// recipes that are known to be worse.
#include "trainer/numerics/probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "configs/resolve.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/memory_block.h"
#include "trainer/numerics/initial_weights.h"
#include "trainer/numerics/probe_report.h"

namespace shoestring {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

PrecisionPreset Plain(const std::string& name, config::PrecisionConfig::Mode mode) {
  PrecisionPreset preset{name, "", {}};
  preset.precision.set_mode(mode);
  preset.precision.set_moments(mode == config::PrecisionConfig::FP32 ? config::PrecisionConfig::MOMENTS_FP32
                                                                     : config::PrecisionConfig::MOMENTS_BF16);
  return preset;
}

ProbeRequest Request(const config::RunConfig& config, const std::vector<std::string>& presets) {
  ProbeRequest request{config, Schedule(config).PlanStep({}), {}, false, 1};
  for (const std::string& name : presets) {
    if (name == "fp32") {
      request.presets.push_back(Plain(name, config::PrecisionConfig::FP32));
    } else {
      request.presets.push_back(*ParsePrecisionPreset(name));
    }
  }
  return request;
}

HostBatch Batch(const ProbeRequest& request) {
  const BatchShape shape = ProbeBatchShape(request.config, request.plan);
  FormulaSource source(shape.row_tokens(), 3);
  HostBatch batch;
  CHECK(PrepareBatch(source, shape, SampleRuns::One(0, request.plan.micro_batch), batch).ok());
  return batch;
}

// `spoil` may change the weights.
ProbeResult Probe(const ProbeRequest& request, void (*spoil)(const StateTensor&) = nullptr) {
  const absl::StatusOr<ProbeResult> result =
      RunProbe(request, Batch(request), [&](const std::vector<StateTensor>& tensors) {
        const absl::Status status = WriteInitialWeights(request.config, 1, tensors);
        for (const StateTensor& tensor : tensors) {
          if (spoil != nullptr) spoil(tensor);
        }
        return status;
      });
  CHECK(result.ok());
  return *result;
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

double Median(const PresetResult& preset, TensorGroup group) { return Summarise(preset, group).median_db; }

TEST(ProbeTest, Fp32AgainstItselfIsExactInEveryTensor) {
  const ProbeResult result = Probe(Request(TinyConfig(), {"fp32"}));
  std::set<std::string> names;
  for (const MeasuredTensor& tensor : result.presets[0].tensors) {
    EXPECT_EQ(tensor.signal.SnrDb(), kInfinity) << tensor.id.name;
    EXPECT_GT(tensor.signal.max_reference(), 0) << tensor.id.name;
    EXPECT_TRUE(names.insert(tensor.id.name).second) << tensor.id.name;
  }
  EXPECT_TRUE(result.presets[0].quantisers.empty());
  EXPECT_EQ(result.presets[0].differing_tokens, 0);
  EXPECT_EQ(result.presets[0].routed_tokens, 2 * 2 * 12);  // a gate in the MoE layer, one in the MTP module
  // Every matrix has its output, the gradient of its input and its own gradient; every gain likewise.
  for (const Parameter& p : BuildParameterTable(TinyConfig().model())) {
    std::string stem = p.name;
    if (stem.rfind("model.", 0) == 0) stem = stem.substr(6);
    if (stem.size() > 7 && stem.substr(stem.size() - 7) == ".weight") stem.resize(stem.size() - 7);
    if (!p.trained) continue;
    EXPECT_TRUE(names.count(stem + ".dw")) << stem;
    EXPECT_TRUE(names.count(stem + ".out")) << stem;
    EXPECT_TRUE(names.count(stem + ".dx") || stem == "embed_tokens") << stem;
  }
  for (const char* name : {"layers.0.self_attn.core.dkv", "layers.1.mlp.experts.swiglu.out", "lm_head.dy",
                           "lm_head.loss", "layers.2.shared_head.lm_head.out", "layers.2.shared_head.lm_head.dx",
                           "layers.2.embed_tokens.out", "layers.1.mlp.gate.dy", "layers.1.block.out"}) {
    EXPECT_TRUE(names.count(name)) << name;
  }
}

// Every shape of model has names for all its tensors, in every precision.
class ShapesTest : public testing::TestWithParam<const char*> {};

TEST_P(ShapesTest, Fp32IsExactAndFp8IsNamed) {
  config::RunConfig config = TinyConfig();
  config::RunConfig changes;
  CHECK(google::protobuf::TextFormat::ParseFromString(GetParam(), &changes));
  if (changes.model().dense_layers() == config.model().layers()) config.mutable_model()->clear_moe();
  config.MergeFrom(changes);
  const ProbeResult result = Probe(Request(config, {"fp32", "fp8"}));
  std::set<std::string> names, operands;
  for (const MeasuredTensor& tensor : result.presets[0].tensors) {
    EXPECT_EQ(tensor.signal.SnrDb(), kInfinity) << tensor.id.name;
    EXPECT_TRUE(names.insert(tensor.id.name).second) << tensor.id.name;
  }
  for (const MeasuredQuantiser& q : result.presets[1].quantisers) {
    operands.insert(q.name);
    if (!EndsWith(q.name, " kept")) continue;
    EXPECT_TRUE(names.count(q.name.substr(0, q.name.size() - 5))) << q.name << " is no tensor";
  }
  for (const Parameter& p : BuildParameterTable(config.model())) {
    if (!p.trained) continue;
    std::string stem = p.name.rfind("model.", 0) == 0 ? p.name.substr(6) : p.name;
    if (EndsWith(stem, ".weight")) stem.resize(stem.size() - 7);
    EXPECT_TRUE(names.count(stem + ".dw")) << stem;
    EXPECT_TRUE(names.count(stem + ".out")) << stem;
    EXPECT_TRUE(names.count(stem + ".dx") || stem == "embed_tokens") << stem;
    if (!p.linear) continue;
    EXPECT_TRUE(operands.count(stem + ".weight")) << stem;
    EXPECT_TRUE(operands.count(stem + ".x by tokens")) << stem;
    EXPECT_TRUE(operands.count(stem + ".dy by tokens")) << stem;
  }
  for (const MeasuredTensor& tensor : result.presets[1].tensors) {
    const double snr = tensor.signal.SnrDb();
    EXPECT_GT(snr, 5) << tensor.id.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ShapesTest,
                         testing::Values("model { attention { q_lora_rank: 0 } }", "model { mtp_depth: 0 }",
                                         "model { mtp_depth: 2 }", "model { moe { shared_experts: 0 } }",
                                         "model { layers: 2 dense_layers: 2 mtp_depth: 1 }",
                                         "model { dense_layers: 0 moe { gate: SOFTMAX renormalize: false } }",
                                         "data { document_mask: true } train { balance_alpha: 0 }"));

// A model outside the probe, on a backend that nobody looks at.
class Alone {
 public:
  Alone(const ProbeRequest& request, const config::PrecisionConfig& precision) : config_(request.config) {
    *config_.mutable_precision() = precision;
    const config::PhaseSettings settings = config::ResolvePhase(config_, request.plan.phase);
    const ModelShape shape = MakeModelShape(config_.model(), settings.yarn, config_.precision(),
                                            request.plan.micro_batch, request.plan.sequence_length);
    std::vector<StateTensor> tensors;
    for (const Parameter& p : table_) {
      masters_.push_back(arena_.Allocate(Purpose::kMasterWeights, p.name, DType::kF32, p.stack * p.rows, p.cols));
      tensors.push_back({StateKind::kWeights, p.name, {}, masters_.back()});
    }
    CHECK(WriteInitialWeights(config_, 1, tensors).ok());
    model_ = std::make_unique<ProbeModel>(*backend_, arena_, shape,
                                          ProbeInputs{table_, masters_, request.plan, shape_of_batch_});
    model_->RefreshWeights();
    model_->Run(Batch(request), nullptr);
  }
  const ProbeModel& model() const { return *model_; }
  const std::vector<Parameter>& table() const { return table_; }

 private:
  config::RunConfig config_;
  const std::vector<Parameter> table_ = BuildParameterTable(config_.model());
  const BatchShape shape_of_batch_ = ProbeBatchShape(config_, Schedule(config_).PlanStep({}));
  MemoryBlock memory_ = *MemoryBlock::Map(64 << 20);
  Arena arena_{memory_.data(), memory_.size_bytes()};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend({});
  std::vector<View> masters_;
  std::unique_ptr<ProbeModel> model_;
};

// Looking changes no bit, and what is reported of the gradients is what a plain loop finds.
TEST(ProbeTest, ReportsWhatModelsAloneCompute) {
  ProbeRequest request = Request(TinyConfig(), {"bf16", "fp8"});
  request.own_routing = true;
  const ProbeResult result = Probe(request);
  const Alone exact(request, Plain("", config::PrecisionConfig::FP32).precision);
  EXPECT_EQ(result.reference.main, exact.model().losses().main);
  EXPECT_EQ(result.reference.mtp, exact.model().losses().mtp);
  for (const PresetResult& preset : result.presets) {
    const Alone rounded(request, preset.preset.precision);
    EXPECT_EQ(preset.losses.main, rounded.model().losses().main);
    EXPECT_EQ(preset.losses.balance, rounded.model().losses().balance);
    std::map<std::string, double> reported;
    for (const MeasuredTensor& tensor : preset.tensors) reported[tensor.id.name] = tensor.signal.RelativeError();
    for (size_t i = 0; i < exact.table().size(); ++i) {
      const Parameter& p = exact.table()[i];
      if (!p.trained) continue;
      const float* wanted = exact.model().gradient(i).as<float>();
      const float* found = rounded.model().gradient(i).as<float>();
      long double squares = 0, errors = 0;
      for (int64_t e = 0; e < p.elements(); ++e) {
        squares += static_cast<long double>(wanted[e]) * wanted[e];
        errors += (static_cast<long double>(found[e]) - wanted[e]) * (static_cast<long double>(found[e]) - wanted[e]);
      }
      std::string name = p.name.rfind("model.", 0) == 0 ? p.name.substr(6) : p.name;
      name = name.substr(0, name.rfind(".weight")) + ".dw";
      ASSERT_TRUE(reported.count(name)) << name;
      EXPECT_NEAR(reported[name], static_cast<double>(std::sqrt(errors / squares)), 1e-9) << name;
    }
  }
}

TEST(ProbeTest, NamesEveryOperandOfLinearLayers) {
  const ProbeResult result = Probe(Request(TinyConfig(), {"fp8"}));
  std::map<std::string, MeasuredQuantiser> operands;
  for (const MeasuredQuantiser& q : result.presets[0].quantisers) operands[q.name] = q;
  for (const Parameter& p : BuildParameterTable(TinyConfig().model())) {
    if (!p.linear) continue;
    std::string stem = p.name.substr(6);
    if (stem.substr(stem.size() - 7) == ".weight") stem.resize(stem.size() - 7);
    ASSERT_TRUE(operands.count(stem + ".weight")) << stem;
    EXPECT_EQ(operands[stem + ".weight"].loss.elements, p.elements()) << stem;
    EXPECT_TRUE(operands.count(stem + ".dy by tokens")) << stem;
    EXPECT_TRUE(operands.count(stem + ".x by tokens")) << stem;
    EXPECT_EQ(operands[stem + ".x by tokens"].tile.rows, 128) << stem;
    // Tokens reach experts as they were sent.
    const bool sent = stem.find(".experts.") != std::string::npos;
    EXPECT_TRUE(operands.count(stem + ".x") || (sent && stem.find("gate_up") != std::string::npos)) << stem;
    EXPECT_TRUE(operands.count(stem + ".dy") || (sent && stem.find("down") != std::string::npos)) << stem;
  }
  EXPECT_EQ(operands["layers.0.self_attn.core.out kept"].format, DType::kE5M6);
  EXPECT_TRUE(operands["layers.1.mlp.experts.dispatch"].power_of_two);
  EXPECT_EQ(operands["layers.1.mlp.experts.dispatch_gradient"].loss.elements, 2 * 12 * 32);
  // Three fraction bits: relative errors are uniform between -1/16 and 1/16 of a binade, some 31.5 dB. What was sent
  // under scales that are powers of two keeps all its bits when it is regrouped under such.
  for (const auto& [name, q] : operands) {
    if (q.format != DType::kE4M3) continue;
    if (EndsWith(name, ".experts.gate_up_proj.x by tokens") || EndsWith(name, ".experts.down_proj.dy by tokens")) {
      EXPECT_EQ(q.loss.noise.SnrDb(), kInfinity) << name;
      EXPECT_TRUE(q.power_of_two) << name;
      continue;
    }
    EXPECT_GT(q.loss.noise.SnrDb(), 28) << name;
    EXPECT_LT(q.loss.noise.SnrDb(), 40) << name;
  }
}

TEST(ProbeTest, RanksFormatsByTheirBits) {
  const ProbeResult result = Probe(Request(TinyConfig(), {"bf16", "fp8", "fp8-e5m2", "mine:fp8.weight_format=E5M2"}));
  const auto& [bf16, report, e5m2, weights] =
      std::tie(result.presets[0], result.presets[1], result.presets[2], result.presets[3]);
  for (const TensorGroup group : {TensorGroup::kActivation, TensorGroup::kGradient, TensorGroup::kWeightGradient}) {
    EXPECT_GT(Median(bf16, group), Median(report, group) + 10) << Name(group);
    EXPECT_GT(Median(report, group), Median(weights, group) + 1) << Name(group);
  }
  EXPECT_EQ(Median(report, TensorGroup::kActivation), Median(e5m2, TensorGroup::kActivation));
  EXPECT_GT(Median(report, TensorGroup::kGradient), Median(e5m2, TensorGroup::kGradient) + 1);
}

// Channels that are thousands of times larger than the others: in one tile with them, the others underflow.
TEST(ProbeTest, CoarseTilesLoseBesideOutliers) {
  const config::RunConfig config = TinyConfig("FP32", "model { hidden: 256 }");
  const auto spoil = [](const StateTensor& tensor) {
    if (tensor.name.find("layernorm") == std::string::npos || tensor.view.cols != 256) return;
    for (int64_t c = 0; c < 128; ++c) tensor.view.as<float>()[c] *= 3e5f;
  };
  const ProbeResult result = Probe(Request(config, {"fp8", "fp8-coarse"}), spoil);
  const auto underflow = [](const PresetResult& preset, const std::string& name) {
    for (const MeasuredQuantiser& q : preset.quantisers) {
      if (q.name == name) return q.loss.flushed_share();
    }
    return -1.0;
  };
  const std::string name = "layers.0.self_attn.qkv_a_proj.x";
  EXPECT_LT(underflow(result.presets[0], name), 0.01);
  EXPECT_GE(underflow(result.presets[0], name), 0);
  EXPECT_GT(underflow(result.presets[1], name), 0.4);  // all of the other half
  const ProbeResult plain = Probe(Request(config, {"fp8", "fp8-coarse"}));
  const auto gap = [](const ProbeResult& r) {
    return Median(r.presets[0], TensorGroup::kWeightGradient) - Median(r.presets[1], TensorGroup::kWeightGradient);
  };
  EXPECT_GT(gap(result), gap(plain));
}

TEST(ProbeTest, OwnRoutingLeavesRowsOfExpertsOut) {
  // A recipe that is coarse enough for some tokens to choose otherwise.
  ProbeRequest request = Request(TinyConfig(), {"fp32", "mine:fp8.weight_format=E5M2,fp8.activation_format=E5M2"});
  const ProbeResult forced = Probe(request);
  request.own_routing = true;
  const ProbeResult own = Probe(request);
  EXPECT_EQ(own.presets[0].differing_tokens, 0);
  EXPECT_GT(own.presets[1].differing_tokens, 0);
  EXPECT_GT(forced.presets[1].differing_tokens, 0);
  const auto has = [](const ProbeResult& result, const std::string& name) {
    const auto& tensors = result.presets[1].tensors;
    return std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.id.name == name; });
  };
  for (const char* rows : {"layers.1.mlp.experts.down_proj.out", "layers.1.mlp.experts.swiglu.dx",
                           "layers.1.mlp.gate.weights", "layers.1.mlp.experts.dispatch"}) {
    EXPECT_TRUE(has(forced, rows)) << rows;
    EXPECT_FALSE(has(own, rows)) << rows;
  }
  EXPECT_TRUE(has(own, "layers.1.block.out"));
  // A token that goes elsewhere costs more than one that is rounded.
  EXPECT_GT(Summarise(forced.presets[1], TensorGroup::kWeightGradient).worst_db,
            Summarise(own.presets[1], TensorGroup::kWeightGradient).worst_db);
}

TEST(ProbeTest, ThreadsChangeNoNumber) {
  ProbeRequest request = Request(TinyConfig(), {"fp8"});
  const ProbeResult one = Probe(request);
  request.threads = 3;
  const ProbeResult three = Probe(request);
  ASSERT_EQ(one.presets[0].tensors.size(), three.presets[0].tensors.size());
  for (size_t i = 0; i < one.presets[0].tensors.size(); ++i) {
    EXPECT_EQ(one.presets[0].tensors[i].signal.SnrDb(), three.presets[0].tensors[i].signal.SnrDb());
  }
}

TEST(ProbeTest, ErrorsOfTheWeightsComeBack) {
  const ProbeRequest request = Request(TinyConfig(), {"bf16"});
  const auto fail = [](const std::vector<StateTensor>&) { return absl::DataLossError("torn"); };
  EXPECT_EQ(RunProbe(request, Batch(request), fail).status(), absl::DataLossError("torn"));
}

}  // namespace
}  // namespace shoestring

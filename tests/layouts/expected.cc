// Work, messages of the pipeline, numbers of the whole world; and the comparison.
#include "tests/layouts/expected.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/shape_backend.h"
#include "parallel/local_exchange.h"
#include "parallel/pipeline/build.h"
#include "parallel/pipeline/check.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/model/model.h"

namespace shoestring {
namespace {

ModelShape ShapeOf(const config::RunConfig& config) {
  const config::PhaseSettings settings = config::ResolvePhase(config, 0);
  return MakeModelShape(config.model(), settings.yarn, config.precision(), settings.phase->micro_batch(),
                        settings.phase->sequence_length());
}

// What StageModel::Cost declares of a run of layers.
OperationCost CostOf(const LayoutBooks& b, const StagePlacement& placement) {
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Backend> shapes = MakeShapeBackend(*cpu);
  const std::unique_ptr<Stream> stream = shapes->MakeStream();
  const std::unique_ptr<ExpertExchange> exchange = MakeLocalExchange(MakeExchangeShape(b.shape));
  Arena arena = Arena::Measuring();
  return StageModel(*shapes, *stream, arena, b.shape, b.table, placement, MakeRecomputeOptions(b.config.recompute()),
                    *exchange)
      .Cost();
}

int64_t Gemm(const OperationCost& cost) {
  return cost.forward_gemm_flops + cost.input_gradient_gemm_flops + cost.weight_gradient_gemm_flops;
}
int64_t Attention(const OperationCost& cost) {
  return cost.forward_attention_flops + cost.input_gradient_attention_flops;
}

// Three products, of x with [2F, D] and of h with [D, F], for a row of an expert.
int64_t ExpertRowFlops(const ModelShape& s) { return int64_t{3} * 2 * 3 * s.expert_ffn * s.hidden; }

// Rows that the rank's experts received, in all layers.
int64_t ExpertRows(const LayoutBooks& b, const LayoutRun& run, Rank rank) {
  const IndexRange own = b.mesh.ExpertsOf(rank, static_cast<int>(b.shape.experts));
  int64_t rows = 0;
  for (const Rank source : b.mesh.ExpertGroup(rank).members) {
    for (const Choices& choices : run.ranks[source.value].choices) {
      rows += std::count_if(choices.begin(), choices.end(),
                            [&](int32_t e) { return e >= own.first && e < own.first + own.count; });
    }
  }
  return rows;
}

class Comparison {
 public:
  Comparison(const LayoutBooks& books, const LayoutRun& run) : b_(books), run_(run) {}

  std::vector<std::string> Find() {
    CheckProgramText();
    CheckChoices();
    std::vector<HeldTable> held;
    const bool copies = b_.config.precision().mode() != config::PrecisionConfig::FP32;
    for (int r = 0; r < b_.mesh.world_size(); ++r) {
      held.push_back(HeldTable::Create(b_.table, b_.config.model(), b_.layout, b_.mesh, Rank(r), copies));
    }
    CheckHeld(b_, held, found_);
    CheckWork();
    for (int r = 0; r < b_.mesh.world_size(); ++r) {
      for (const auto& [purpose, bytes] : StateBytes(b_, held[r])) {
        Expect(r, absl::StrCat("bytes of ", Name(purpose)), run_.ranks[r].arena[static_cast<int>(purpose)], bytes);
      }
      CheckReceived(Rank(r), held[r]);
    }
    return std::move(found_);
  }

 private:
  void Expect(int rank, const std::string& what, int64_t is, int64_t should) {
    if (is != should) found_.push_back(absl::StrCat("rank ", rank, ": ", what, ": ", is, ", not ", should));
  }

  // What the checker accepts, ranks were given, and did.
  void CheckProgramText() {
    const absl::StatusOr<Program> program = BuildProgram(b_.layout, b_.mesh, b_.micro_batches());
    CHECK(program.ok());
    const std::vector<int64_t> entering(b_.mesh.directions(), b_.micro_batches());
    if (!CheckProgram(*program, b_.mesh, entering).ok()) found_.push_back("the program is refused");
    const auto sha = [](const Program& p) { return absl::BytesToHexString(Sha256::Of(ToString(p))); };
    for (int d = 0; d < b_.mesh.data_ranks(); ++d) {
      Program given, executed;
      for (int p = 0; p < b_.mesh.pipeline_ranks(); ++p) {
        const RankRecord& record = run_.ranks[b_.mesh.RankAt(p, d).value];
        given.positions.push_back(record.program);
        executed.positions.push_back(record.executed);
      }
      if (sha(given) != sha(*program)) found_.push_back(absl::StrCat("pipeline ", d, " was given another program"));
      if (sha(executed) != sha(*program)) found_.push_back(absl::StrCat("pipeline ", d, " did something else"));
    }
  }

  // The choices that were seen are those that all ranks counted.
  void CheckChoices() {
    std::vector<std::vector<int64_t>> counts(b_.shape.expert_layers(), std::vector<int64_t>(b_.shape.experts, 0));
    for (const RankRecord& record : run_.ranks) {
      const std::vector<int64_t> layers = DispatchedLayers(b_, record.executed);
      if (layers.size() != record.choices.size()) {
        found_.push_back(absl::StrCat(record.choices.size(), " gates, not ", layers.size()));
        return;
      }
      for (size_t i = 0; i < layers.size(); ++i) {
        for (const int32_t e : record.choices[i]) ++counts[layers[i] - b_.shape.dense_layers][e];
      }
    }
    if (counts != run_.expert_counts) found_.push_back("expert counts are not those of the choices");
  }

  void CheckWork() {
    const int64_t chosen = b_.shape.tokens() * b_.shape.chosen * ExpertRowFlops(b_.shape);
    int64_t all = 0;
    for (int r = 0; r < b_.mesh.world_size(); ++r) {
      int64_t gemm = ExpertRows(b_, run_, Rank(r)) * ExpertRowFlops(b_.shape), attention = 0;
      for (int s = 0; s < b_.mesh.stages(); ++s) {
        for (int d = 0; d < b_.mesh.directions(); ++d) {
          if (!b_.Holds(Rank(r), s, d)) continue;
          const OperationCost cost = CostOf(b_, b_.placements[s]);
          const int64_t layers = static_cast<int64_t>(b_.MoeLayersOf(s).size());
          gemm += b_.micro_batches() * (Gemm(cost) - layers * chosen);
          attention += b_.micro_batches() * Attention(cost);
        }
      }
      Expect(r, "GEMM FLOPs", run_.ranks[r].work.gemm_flops, gemm);
      Expect(r, "attention FLOPs", run_.ranks[r].work.attention_flops, attention);
      all += run_.ranks[r].work.gemm_flops;
    }
    const int64_t one = b_.lanes * b_.waves * Gemm(CostOf(b_, WholeModel(b_.shape)));
    if (all != one) found_.push_back(absl::StrCat("GEMM FLOPs of all ranks: ", all, ", not ", one));
  }

  Received PipelineReceived(const std::vector<Action>& program, ActionKind kind) const {
    const int64_t messages =
        std::count_if(program.begin(), program.end(), [kind](const Action& a) { return a.kind == kind; });
    return {messages, messages * b_.shape.tokens() * b_.shape.hidden * b_.act_bytes};
  }

  // Losses, counts, blocks of the norm and largest biases: all-reduced, everyone's to everyone.
  Received WorldReceived() const {
    const int64_t others = b_.mesh.world_size() - 1, layers = b_.shape.expert_layers();
    int64_t blocks = 0;
    for (const Parameter& p : b_.table) {
      if (p.trained) blocks += p.stack * ((p.rows * p.cols + kNormBlockElements - 1) / kNormBlockElements);
    }
    const int64_t numbers =
        b_.lanes * b_.waves * (1 + b_.shape.mtp_depth + layers) + layers * b_.shape.experts + blocks + layers;
    return {4 * others, others * numbers * 8};
  }

  void CheckReceived(Rank rank, const HeldTable& held) {
    const RankRecord& record = run_.ranks[rank.value];
    std::map<std::string, Received> expected = StateReceived(b_, held, rank);
    expected["world"] = WorldReceived();
    expected["forward"] = PipelineReceived(record.program, ActionKind::kReceiveForward);
    expected["backward"] = PipelineReceived(record.program, ActionKind::kReceiveBackward);
    expected["experts"] = ExchangeReceived(b_, run_.ranks, rank);
    for (const auto& [name, is] : record.received) {
      const Received should = expected.contains(name) ? expected.at(name) : Received();
      Expect(rank.value, absl::StrCat("messages received over '", name, "'"), is.messages, should.messages);
      Expect(rank.value, absl::StrCat("bytes received over '", name, "'"), is.bytes, should.bytes);
    }
  }

  const LayoutBooks& b_;
  const LayoutRun& run_;
  std::vector<std::string> found_;
};

}  // namespace

LayoutBooks::LayoutBooks(const config::RunConfig& config)
    : config(config),
      layout(config::ResolvePhase(config, 0).layout),
      mesh(*Mesh::Create(layout)),
      shape(ShapeOf(config)),
      table(BuildParameterTable(config.model())),
      placements(PlaceStages(config.model(), layout)),
      lanes(config.train().lanes()),
      waves(config.train().phase(0).batch().sequences() / (lanes * config.train().phase(0).micro_batch())),
      expert_lanes(config.train().expert_lanes()),
      act_bytes(SizeOf(shape.act)) {}

std::vector<int64_t> LayoutBooks::MoeLayersOf(int stage) const {
  std::vector<int64_t> layers;
  const StagePlacement& placement = placements[stage];
  for (int64_t l = placement.first_layer; l < placement.first_layer + placement.layer_count; ++l) {
    if (shape.is_moe(l)) layers.push_back(l);
  }
  for (int64_t k = 0; placement.last && k < shape.mtp_depth; ++k) layers.push_back(shape.layers + k);
  return layers;
}

std::vector<int64_t> DispatchedLayers(const LayoutBooks& books, const std::vector<Action>& actions) {
  std::vector<int64_t> layers;
  for (const Action& action : actions) {
    if (action.kind != ActionKind::kForward && action.kind != ActionKind::kOverlapped) continue;
    const std::vector<int64_t> more = books.MoeLayersOf(action.work.stage.value);
    layers.insert(layers.end(), more.begin(), more.end());
  }
  return layers;
}

std::vector<std::string> FindDifferences(const LayoutBooks& books, const LayoutRun& run) {
  return Comparison(books, run).Find();
}

}  // namespace shoestring

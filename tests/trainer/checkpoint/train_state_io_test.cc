// Tests of the way from a training state into a checkpoint and back.
#include "trainer/checkpoint/train_state_io.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>

#include "base/check.h"
#include "configs/load.h"
#include "gtest/gtest.h"
#include "kernels/arena.h"
#include "tests/base/temp_dir.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/save.h"

namespace shoestring {
namespace {

config::ModelConfig SmallModel() {
  auto loaded = config::LoadConfig(
      PosixFileSystem(), {"configs/recipes/tiny_cpu.textproto"},
      {"model.vocab_size=40", "model.layers=2", "model.hidden=16", "model.dense_ffn=24", "model.moe.routed_experts=1",
       "model.moe.active_experts=1", "model.moe.expert_ffn=5", "model.moe.groups=1", "model.moe.groups_kept=1"});
  CHECK_EQ(loaded.status().ToString(), absl::OkStatus().ToString());
  return loaded->config.model();
}

void Fill(const std::vector<StateTensor>& tensors, int value) {
  for (const StateTensor& tensor : tensors) {
    std::memset(tensor.view.data, ++value % 251, static_cast<size_t>(tensor.view.bytes()));
  }
}

TEST(TrainStateIoTest, EverythingOfTheStateComesBack) {
  const std::vector<Parameter> table = BuildParameterTable(SmallModel());
  constexpr int64_t kBytes = int64_t{16} << 20;
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(64, kBytes), std::free);
  Arena arena(static_cast<std::byte*>(memory.get()), kBytes);
  const HeldTable held = HeldTable::Whole(table, /*copies=*/true);
  TrainState state(arena, held, {.activation = DType::kBF16, .moments = DType::kBF16, .ema = true});
  state.position = {.step = 3, .tokens = 99, .phase = 1, .phase_step = 2, .phase_tokens = 66, .phase_sequences = 6};
  const std::vector<StateTensor> tensors = StateTensorsOf(state);
  std::set<std::string> names;
  size_t kept = 0;
  for (const StateTensor& tensor : tensors) names.insert(StoredName(tensor));
  for (const ParameterState& p : state.parameters()) kept += 1 + (p.m ? 1 : 0) + (p.v ? 1 : 0) + (p.ema ? 1 : 0);
  EXPECT_EQ(names.size(), kept);
  EXPECT_TRUE(names.contains("bias.model.layers.1.mlp.gate.e_score_correction_bias"));
  EXPECT_TRUE(names.contains("exp_avg_sq.model.norm.weight"));
  Fill(tensors, 0);
  Snapshot snapshot{{}, tensors};
  SetPosition(state.position, snapshot.header);
  const std::string digest = StateDigest(snapshot);
  const TempDir dir;
  ASSERT_TRUE(SaveCheckpoint(PosixFileSystem(), dir.path(), snapshot).ok());
  Fill(tensors, 100);
  const auto found = FindNewest(PosixFileSystem(), dir.path());
  ASSERT_TRUE(found.ok()) << found.status();
  const absl::Status read = ReadState(PosixFileSystem(), *found, tensors, Coverage::kWholeState);
  ASSERT_TRUE(read.ok()) << read;
  EXPECT_EQ(StateDigest({found->header(), tensors}), digest);
  EXPECT_EQ(PositionOf(found->header()), state.position);
}

}  // namespace
}  // namespace shoestring

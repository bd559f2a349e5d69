// Tests of saving, loading, listing, checking and pruning checkpoints on a healthy disk.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/base/temp_dir.h"
#include "tests/trainer/checkpoint/small_state.h"
#include "trainer/checkpoint/check.h"
#include "trainer/checkpoint/directory.h"
#include "trainer/checkpoint/load.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/save.h"
#include "trainer/checkpoint/stored_tensors.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

FileSystem& Fs() { return PosixFileSystem(); }
constexpr SaveOptions kSmallBlocks{.block_bytes = 100};

void Save(const std::string& directory, const SmallState& state) {
  const auto saved = SaveCheckpoint(Fs(), directory, state.snapshot, kSmallBlocks);
  ASSERT_TRUE(saved.ok()) << saved.status();
}

// Reads the checkpoint into a state of other contents, and returns the digest of what was read.
absl::StatusOr<std::string> Load(const std::string& path) {
  absl::StatusOr<OpenedCheckpoint> checkpoint = OpenCheckpoint(Fs(), path);
  if (!checkpoint.ok()) return checkpoint.status();
  SmallState state(0);
  state.Clear();
  const absl::Status read = ReadState(Fs(), *checkpoint, state.snapshot.tensors, Coverage::kWholeState);
  if (!read.ok()) return read;
  state.snapshot.header = checkpoint->header();
  return state.Digest();
}

TEST(CheckpointTest, WhatIsSavedIsRead) {
  const TempDir dir;
  const std::string directory = dir.File("run/checkpoints");
  const SmallState state(100);
  const auto saved = SaveCheckpoint(Fs(), directory, state.snapshot, kSmallBlocks);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->path, JoinPath(directory, "step_0000100"));
  EXPECT_EQ(saved->state_digest, state.Digest());
  EXPECT_THAT(*Fs().List(directory), ElementsAre("LATEST", "step_0000100"));
  EXPECT_THAT(*Fs().List(saved->path), ElementsAre("manifest.pb", "shard_00000.safetensors"));
  EXPECT_EQ(*ReadFile(Fs(), JoinPath(directory, "LATEST")), "step_0000100\n");
  const auto digest = Load(saved->path);
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(*digest, state.Digest());
  const auto found = FindNewest(Fs(), directory);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->header().consumed_tokens(), 409600);
}

TEST(CheckpointTest, TheShardSaysItsSlices) {
  const TempDir dir;
  Save(dir.path(), SmallState(7));
  const auto shard = SafetensorsFile::Open(Fs(), dir.File("step_0000007/shard_00000.safetensors"));
  ASSERT_TRUE(shard.ok()) << shard.status();
  const auto slices = nlohmann::json::parse(shard->header().metadata.at("DCP_SHARDING_INFO"));
  EXPECT_EQ(slices.size(), shard->header().entries.size());
  EXPECT_EQ(slices["weights.lm_head.weight"]["saved_offsets"], nlohmann::json({0, 0}));
  EXPECT_EQ(slices["weights.lm_head.weight"]["global_shape"], nlohmann::json({4, 3}));
  EXPECT_EQ(shard->header().metadata.at("shoestring.step"), "7");
}

TEST(CheckpointTest, TheDigestSeesEveryBitAndThePosition) {
  SmallState state(100);
  const std::string digest = state.Digest();
  for (StateTensor& tensor : state.snapshot.tensors) {
    std::byte& last = tensor.view.data[tensor.view.bytes() - 1];
    last ^= std::byte{1};
    EXPECT_NE(state.Digest(), digest) << StoredName(tensor);
    last ^= std::byte{1};
  }
  EXPECT_EQ(state.Digest(), digest);
  state.snapshot.header.set_phase_sequences(1);
  EXPECT_NE(state.Digest(), digest);
  SmallState shuffled(100);
  std::reverse(shuffled.snapshot.tensors.begin(), shuffled.snapshot.tensors.end());
  EXPECT_EQ(shuffled.Digest(), digest);
}

TEST(CheckpointTest, DigestBlocksDoNotDependOnThePieces) {
  const std::string bytes(static_cast<size_t>(kDigestBlockElements) * 2 + 10, 'b');
  TensorDigester whole(1), pieces(1);
  whole.Update(bytes);
  for (size_t begin = 0; begin < bytes.size(); begin += 300001) {
    pieces.Update(absl::string_view(bytes).substr(begin, 300001));
  }
  const std::string sums = whole.Finish();
  EXPECT_EQ(sums.size(), 3u * 65);
  EXPECT_EQ(pieces.Finish(), sums);
}

TEST(CheckpointTest, TensorsThatDoNotFitAreAllNamed) {
  const TempDir dir;
  Save(dir.path(), SmallState(100));
  const auto checkpoint = OpenCheckpoint(Fs(), dir.File("step_0000100"));
  ASSERT_TRUE(checkpoint.ok());
  SmallState other(100);
  other.snapshot.tensors[0].shape = {3, 2, 5};
  other.snapshot.tensors.erase(other.snapshot.tensors.begin() + 1);
  other.Add(StateKind::kEma, "new.weight", {2}, DType::kF32);
  const absl::Status status = ReadState(Fs(), *checkpoint, other.snapshot.tensors, Coverage::kWholeState);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("weights.model.layers.1.mlp.experts.down_proj is F32 [2, 3, 5], not F32 [3, 2, 5]"));
  EXPECT_THAT(message, HasSubstr("weights.lm_head.weight is not known"));
  EXPECT_THAT(message, HasSubstr("ema.new.weight F32 [2] is missing"));
}

TEST(CheckpointTest, APartCanBeReadAlone) {
  const TempDir dir;
  const SmallState saved(100);
  Save(dir.path(), saved);
  const auto checkpoint = OpenCheckpoint(Fs(), dir.File("step_0000100"));
  SmallState state(0);
  state.Clear();
  const std::vector<StateTensor> part = {state.snapshot.tensors[4]};
  EXPECT_FALSE(ReadState(Fs(), *checkpoint, part, Coverage::kWholeState).ok());
  ASSERT_TRUE(ReadState(Fs(), *checkpoint, part, Coverage::kPart).ok());
  EXPECT_EQ(BytesOf(part[0]), BytesOf(saved.snapshot.tensors[4]));
}

// Cuts the checkpoint's first tensor, [2, 3, 5], over two files along `dimension`, as two ranks would have.
void CutInTwo(const std::string& path, const SmallState& state, int dimension, int64_t at) {
  const StateTensor& whole = state.snapshot.tensors[0];
  auto checkpoint = OpenCheckpoint(Fs(), path);
  ASSERT_TRUE(checkpoint.ok());
  checkpoint::Manifest manifest = checkpoint->manifest;
  manifest.clear_files();
  checkpoint::Tensor tensor = manifest.tensors(0);
  for (const checkpoint::Tensor& t : manifest.tensors()) {
    if (t.name() == whole.name && t.kind() == checkpoint::Tensor::WEIGHTS) tensor = t;
  }
  tensor.clear_slices();
  manifest.clear_tensors();
  for (int half = 0; half < 2; ++half) {
    std::vector<int64_t> shape = whole.shape, offset(3, 0);
    offset[dimension] = half == 0 ? 0 : at;
    shape[dimension] = half == 0 ? at : whole.shape[dimension] - at;
    std::string bytes;
    for (int64_t i = 0; i < shape[0]; ++i) {
      for (int64_t j = 0; j < shape[1]; ++j) {
        const int64_t begin = (((offset[0] + i) * 3 + offset[1] + j) * 5 + offset[2]) * 4;
        bytes += std::string(BytesOf(whole).substr(begin, shape[2] * 4));
      }
    }
    const SafetensorsPlan plan = PlanSafetensors({{StoredName(whole), DType::kF32, shape}}, {});
    const std::string contents = plan.prefix + bytes, name = absl::StrCat("half_", half, ".safetensors");
    ASSERT_TRUE(WriteFile(Fs(), JoinPath(path, name), contents).ok());
    checkpoint::File& file = *manifest.add_files();
    file.set_name(name);
    file.set_size_bytes(static_cast<int64_t>(contents.size()));
    BlockSummer summer(manifest.block_bytes());
    summer.Update(contents);
    file.set_block_sums(summer.Finish());
    checkpoint::Slice& slice = *tensor.add_slices();
    slice.set_file(half);
    slice.mutable_shape()->Assign(shape.begin(), shape.end());
    slice.mutable_offset()->Assign(offset.begin(), offset.end());
  }
  *manifest.add_tensors() = tensor;
  Snapshot part{state.snapshot.header, {whole}};
  manifest.set_state_sha256(absl::HexStringToBytes(StateDigest(part)));
  ASSERT_TRUE(WriteFile(Fs(), JoinPath(path, "manifest.pb"), EncodeManifest(manifest)).ok());
}

TEST(CheckpointTest, SlicesOfSeveralFilesAreJoined) {
  for (int dimension = 0; dimension < 3; ++dimension) {
    const TempDir dir;
    const SmallState saved(100);
    Save(dir.path(), saved);
    CutInTwo(dir.File("step_0000100"), saved, dimension, 1);
    const auto checkpoint = OpenCheckpoint(Fs(), dir.File("step_0000100"));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    SmallState state(0);
    state.Clear();
    const std::vector<StateTensor> part = {state.snapshot.tensors[0]};
    const absl::Status read = ReadState(Fs(), *checkpoint, part, Coverage::kWholeState);
    ASSERT_TRUE(read.ok()) << read;
    EXPECT_EQ(BytesOf(part[0]), BytesOf(saved.snapshot.tensors[0])) << dimension;
    const CheckReport report = CheckCheckpoint(Fs(), dir.File("step_0000100"));
    EXPECT_TRUE(report.ok()) << report.ToString();
  }
}

TEST(CheckpointTest, ListCheckAndParents) {
  const TempDir dir;
  for (const int64_t step : {100, 200, 300}) Save(dir.path(), SmallState(step));
  const auto list = ListCheckpoints(Fs(), dir.path());
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 3u);
  EXPECT_FALSE((*list)[0].is_latest);
  EXPECT_TRUE((*list)[2].is_latest);
  EXPECT_EQ((*list)[1].state_digest, SmallState(200).Digest());
  EXPECT_THAT((*list)[2].ToString(), HasSubstr("step_0000300  LATEST"));
  CheckReport report = CheckCheckpoint(Fs(), dir.File("step_0000200"));
  EXPECT_TRUE(report.ok()) << report.ToString();
  EXPECT_EQ(report.parent, "step_0000100: matches");
  EXPECT_EQ(report.state_digest, SmallState(200).Digest());
  EXPECT_THAT(report.ToString(), HasSubstr(SmallState(200).Digest()));
  EXPECT_EQ(CheckCheckpoint(Fs(), dir.File("step_0000100")).parent, "none");
  ASSERT_TRUE(RemoveRecursively(Fs(), dir.File("step_0000100")).ok());
  EXPECT_EQ(CheckCheckpoint(Fs(), dir.File("step_0000200")).parent, "step_0000100: is not here any more");
  Save(dir.path(), SmallState(100, /*seed=*/2));  // LATEST goes back to 100 now
  EXPECT_THAT(CheckCheckpoint(Fs(), dir.File("step_0000200")).parent, HasSubstr("is not the one"));
}

TEST(CheckpointTest, PruneKeepsTheNewestAndNeverTheWrongOnes) {
  const TempDir dir;
  for (const int64_t step : {100, 200, 300, 400}) Save(dir.path(), SmallState(step));
  EXPECT_THAT(*PruneCheckpoints(Fs(), dir.path(), 0), IsEmpty());
  EXPECT_THAT(*PruneCheckpoints(Fs(), dir.path(), 3), ElementsAre(100));
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("LATEST", "step_0000200", "step_0000300", "step_0000400"));
  // Back to 200: what lies beyond LATEST does not count and is not touched.
  ASSERT_TRUE(WriteLatest(Fs(), dir.path(), 300).ok());
  EXPECT_THAT(*PruneCheckpoints(Fs(), dir.path(), 1), ElementsAre(200));
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("LATEST", "step_0000300", "step_0000400"));
  EXPECT_TRUE((*ListCheckpoints(Fs(), dir.path()))[1].beyond_latest);
  // A bad newest one: nothing is removed.
  ASSERT_TRUE(WriteLatest(Fs(), dir.path(), 400).ok());
  ASSERT_TRUE(Fs().Remove(dir.File("step_0000400/manifest.pb")).ok());
  EXPECT_EQ(PruneCheckpoints(Fs(), dir.path(), 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(PruneCheckpoints(Fs(), dir.File("nowhere"), 1).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(CheckpointTest, FallbackIsAskedForAndLoud) {
  const TempDir dir;
  for (const int64_t step : {100, 200, 300}) Save(dir.path(), SmallState(step));
  const std::string shard = dir.File("step_0000300/shard_00000.safetensors");
  std::string bytes = *ReadFile(Fs(), shard);
  bytes[150] ^= 4;
  ASSERT_TRUE(WriteFile(Fs(), shard, bytes).ok());
  const auto strict = FindNewest(Fs(), dir.path());
  EXPECT_EQ(strict.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(strict.status().message()), HasSubstr(shard + ": block 1 of"));
  EXPECT_THAT(std::string(strict.status().message()), HasSubstr("--go-back"));
  ASSERT_TRUE(Fs().Remove(dir.File("step_0000200/manifest.pb")).ok());
  std::vector<std::string> passed_over;
  const auto good = FindNewestGood(Fs(), dir.path(), passed_over);
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->header().step(), 100);
  EXPECT_THAT(passed_over, ElementsAre(HasSubstr("step_0000300"), HasSubstr("step_0000200")));
  ASSERT_TRUE(RemoveRecursively(Fs(), dir.File("step_0000100")).ok());
  passed_over.clear();
  EXPECT_EQ(FindNewestGood(Fs(), dir.path(), passed_over).status().code(), absl::StatusCode::kDataLoss);
}

TEST(CheckpointTest, LatestThatCannotBeTrusted) {
  const TempDir dir;
  EXPECT_EQ(FindNewest(Fs(), dir.path()).status().code(), absl::StatusCode::kNotFound);
  for (const int64_t step : {100, 200}) Save(dir.path(), SmallState(step));
  std::vector<std::string> passed_over;
  for (const char* text : {"step_0000300\n", "step_100\n", "../step_0000100\n", "", "step_00001000000000000000000"}) {
    ASSERT_TRUE(WriteFile(Fs(), dir.File("LATEST"), text).ok());
    EXPECT_EQ(FindNewest(Fs(), dir.path()).status().code(), absl::StatusCode::kDataLoss) << text;
    passed_over.clear();
    EXPECT_EQ(FindNewestGood(Fs(), dir.path(), passed_over)->header().step(), 200) << text;
    EXPECT_EQ(passed_over.size(), 1u);
  }
  ASSERT_TRUE(Fs().Remove(dir.File("LATEST")).ok());
  EXPECT_EQ(FindNewest(Fs(), dir.path())->header().step(), 200);
}

TEST(CheckpointTest, SavingAStepAgain) {
  const TempDir dir;
  for (const int64_t step : {100, 200}) Save(dir.path(), SmallState(step));
  const auto again = SaveCheckpoint(Fs(), dir.path(), SmallState(200).snapshot);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->was_there);
  const SmallState other(200, /*seed=*/9);
  const auto replaced = SaveCheckpoint(Fs(), dir.path(), other.snapshot);
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_FALSE(replaced->was_there);
  EXPECT_EQ(*Load(dir.File("step_0000200")), other.Digest());
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("LATEST", "step_0000100", "step_0000200", "step_0000200.replaced-0"));
  EXPECT_EQ(CheckCheckpoint(Fs(), dir.File("step_0000200")).parent, "step_0000100: matches");
  for (const int64_t step : {300, 400}) Save(dir.path(), SmallState(step));
  ASSERT_TRUE(PruneCheckpoints(Fs(), dir.path(), 2).ok());
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("LATEST", "step_0000300", "step_0000400"));
}

TEST(CheckpointTest, LeftoversAreRemovedAndNothingElse) {
  const TempDir dir;
  Save(dir.path(), SmallState(100));
  for (const char* name : {"step_0000200.tmp-0", "step_0000050.removed-1", "step_0000100.replaced-0", "notes.tmp-0"}) {
    ASSERT_TRUE(Fs().CreateDirectories(dir.File(name)).ok());
    ASSERT_TRUE(WriteFile(Fs(), JoinPath(dir.File(name), "x"), "x").ok());
  }
  ASSERT_TRUE(WriteFile(Fs(), dir.File("LATEST.tmp"), "x").ok());
  ASSERT_TRUE(RemoveLeftovers(Fs(), dir.path()).ok());
  EXPECT_THAT(*Fs().List(dir.path()), ElementsAre("LATEST", "notes.tmp-0", "step_0000100", "step_0000100.replaced-0"));
  EXPECT_TRUE(RemoveLeftovers(Fs(), dir.File("nowhere")).ok());
}

TEST(CheckpointTest, NamesOfSteps) {
  EXPECT_EQ(StepName(100), "step_0000100");
  EXPECT_EQ(StepName(123456789), "step_123456789");
  EXPECT_EQ(StepOfName("step_123456789"), 123456789);
  for (const char* name :
       {"step_100", "step_00000100", "step_-000100", "step_+000100", "step_0000100 ", "Step_0000100"}) {
    EXPECT_FALSE(StepOfName(name).has_value()) << name;
  }
}

TEST(CheckpointTest, AMovedCheckpointMayHaveAnyNameButAnotherSteps) {
  const TempDir dir;
  Save(dir.path(), SmallState(100));
  ASSERT_TRUE(Fs().Rename(dir.File("step_0000100"), dir.File("best")).ok());
  EXPECT_TRUE(OpenCheckpoint(Fs(), dir.File("best")).ok());
  ASSERT_TRUE(Fs().Rename(dir.File("best"), dir.File("step_0000200")).ok());
  EXPECT_THAT(std::string(OpenCheckpoint(Fs(), dir.File("step_0000200")).status().message()),
              HasSubstr("belongs to step 100"));
}

TEST(CompareRunsTest, SaysWhatDiffersAndRefusesWhatMatters) {
  checkpoint::SnapshotHeader saved;
  saved.set_config_textproto("name: \"a\" model { layers: 4 heads: 8 } checkpoint { keep: 2 }");
  saved.set_numerics_hash("n1");
  saved.set_run_hash("r1");
  saved.set_data_hash("d");
  checkpoint::SnapshotHeader current = saved;
  EXPECT_THAT(*CompareRuns(saved, current), IsEmpty());
  current.set_config_textproto("name: \"a\" model { layers: 4 heads: 8 } checkpoint { keep: 5 }");
  current.set_run_hash("r2");
  EXPECT_THAT(*CompareRuns(saved, current), ElementsAre("checkpoint.keep: 2 -> 5"));
  current.set_config_textproto("name: \"a\" model { layers: 4 heads: 16 } checkpoint { keep: 5 }");
  current.set_numerics_hash("n2");
  current.set_data_hash("e");
  const absl::Status refused = CompareRuns(saved, current).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("model.heads: 8 -> 16"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("data: d -> e"));
}

}  // namespace
}  // namespace shoestring

// Rates of the exchange and of the collectives.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/status_macros.h"
#include "tests/gpu/nccl/items.h"

namespace shoestring::gpu {
namespace {

// DeepSeek-V3's exchange as DeepEP measures it (deepseek-ai/DeepEP, docs/legacy.md): 4096 tokens a rank of width 7168,
// 8 of 256 experts each, dispatch in FP8 with a scale every 128, combine in BF16; a token goes once to a rank.
constexpr int64_t kTokens = 4096;
constexpr int64_t kWidth = 7168;
constexpr int kChosen = 8;
constexpr int kExperts = 256;
constexpr int64_t kDispatchBytes = kWidth + kWidth / 128 * 4;
constexpr int64_t kCombineBytes = 2 * kWidth;

std::string Published(int ranks, bool dispatch) {
  if (ranks == 8) return dispatch ? "; DeepEP V1 on H800, EP8 inside a node: 153" : "; DeepEP V1: 158";
  if (ranks == 16) return dispatch ? "; DeepEP V1 on H800, EP16: 43 (RDMA), V2 8x2: 90" : "; DeepEP V1: 43, V2: 81";
  if (ranks == 32) return dispatch ? "; DeepEP V1 on H800, EP32: 58 (RDMA), V2 8x4: 61" : "; DeepEP V1: 57, V2: 61";
  if (ranks == 64) return dispatch ? "; DeepEP V1 on H800, EP64: 51 (RDMA)" : "; DeepEP V1: 50";
  return "";
}

// counts[i][j]: tokens of rank i that choose an expert of rank j. The same on all ranks, which need all of them.
std::vector<std::vector<int64_t>> TokenCounts(int ranks) {
  std::vector<std::vector<int64_t>> counts(ranks, std::vector<int64_t>(ranks, 0));
  for (int i = 0; i < ranks; ++i) {
    const Rng rng(1, RngPurpose::kTest, i);
    for (int64_t token = 0; token < kTokens; ++token) {
      std::vector<bool> chosen(kExperts), reached(ranks);
      for (int64_t k = 0, draw = 0; k < kChosen; ++draw) {
        const int expert = static_cast<int>(rng.Below(token * 64 + draw, kExperts));
        if (chosen[expert]) continue;
        chosen[expert] = true;
        reached[int64_t{expert} * ranks / kExperts] = true;
        ++k;
      }
      for (int j = 0; j < ranks; ++j) counts[i][j] += reached[j];
    }
  }
  return counts;
}

// Median seconds of one call over several rounds; all ranks begin each round together.
absl::StatusOr<double> MedianSeconds(RankContext& context, Communicator& comm,
                                     const std::function<absl::Status()>& call) {
  constexpr int kRounds = 7;
  constexpr int kCalls = 5;
  DeviceMatrix barrier(context, 1, 1);
  std::vector<double> seconds;
  for (int round = 0; round < kRounds + 1; ++round) {
    RETURN_IF_ERROR(comm.AllReduce(context.stream(), barrier.view(), {"barrier", context.options().timeout_s}));
    context.Synchronize();
    const double began_s = RealClock().MonotonicSeconds();
    for (int i = 0; i < kCalls; ++i) RETURN_IF_ERROR(call());
    context.Synchronize();
    if (round > 0) seconds.push_back((RealClock().MonotonicSeconds() - began_s) / kCalls);  // the first warms up
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[kRounds / 2];
}

void Row(RankContext& context, absl::string_view what, const std::string& figure) {
  if (context.options().rank != 0) return;
  std::printf("| nccl | %s, %d ranks | %s |\n", std::string(what).c_str(), context.options().ranks, figure.c_str());
  std::fflush(stdout);
}

absl::Status MeasureTokens(RankContext& context, Communicator& comm, bool dispatch) {
  const int ranks = comm.size(), rank = comm.index();
  const std::vector<std::vector<int64_t>> counts = TokenCounts(ranks);
  std::vector<int64_t> out = {0}, in = {0};
  for (int j = 0; j < ranks; ++j) {
    out.push_back(out.back() + (dispatch ? counts[rank][j] : counts[j][rank]));
    in.push_back(in.back() + (dispatch ? counts[j][rank] : counts[rank][j]));
  }
  const int64_t row_bytes = dispatch ? kDispatchBytes : kCombineBytes;
  DeviceMatrix send(context, out.back(), row_bytes / 4), receive(context, in.back(), row_bytes / 4);
  ASSIGN_OR_RETURN(const double seconds, MedianSeconds(context, comm, [&] {
                     return comm.AllToAllV(context.stream(), send.view(), out, receive.view(), in,
                                           {"exchange", context.options().timeout_s});
                   }));
  const int64_t others = in.back() - (in[rank + 1] - in[rank]);
  // As DeepEP counts: the bytes that arrive at a rank, its own tokens included; beside it what left a device.
  Row(context, dispatch ? "dispatch of V3's tokens, FP8" : "combine of V3's tokens, BF16",
      absl::StrFormat("%.1f GB/s received, %.1f GB/s of it from other ranks (%.0f us)%s",
                      in.back() * row_bytes / seconds / 1e9, others * row_bytes / seconds / 1e9, seconds * 1e6,
                      Published(ranks, dispatch)));
  return absl::OkStatus();
}

// Bus bandwidth: what a link carries if the algorithm is optimal, as nccl-tests define it (doc/PERFORMANCE.md).
absl::Status MeasureCollectives(RankContext& context, Communicator& comm, int64_t bytes) {
  const int64_t n = comm.size();
  const CallOptions options{"rate", context.options().timeout_s};
  const int64_t part = bytes / 4 / n;
  DeviceMatrix all(context, n, part), more(context, n, part), mine(context, 1, part);
  std::vector<int64_t> offsets;
  for (int64_t j = 0; j <= n; ++j) offsets.push_back(j);
  struct Verb {
    const char* name;
    double factor;
    std::function<absl::Status()> call;
  };
  Stream& stream = context.stream();
  const double most = static_cast<double>(n - 1) / n;
  const Verb verbs[] = {
      {"all_reduce", 2 * most, [&] { return comm.AllReduce(stream, all.view(), options); }},
      {"reduce_scatter", most, [&] { return comm.ReduceScatter(stream, all.view(), mine.view(), options); }},
      {"all_gather_v", most, [&] { return comm.AllGatherV(stream, mine.view(), all.view(), offsets, options); }},
      {"all_to_all_v", most,
       [&] { return comm.AllToAllV(stream, all.view(), offsets, more.view(), offsets, options); }}};
  for (const Verb& verb : verbs) {
    ASSIGN_OR_RETURN(const double seconds, MedianSeconds(context, comm, verb.call));
    Row(context, absl::StrFormat("%s of %d KiB", verb.name, bytes >> 10),
        absl::StrFormat("%.1f GB/s bus (%.0f us)", verb.factor * bytes / seconds / 1e9, seconds * 1e6));
  }
  return absl::OkStatus();
}

// Both directions at once, as the neighbours of a pipeline do.
absl::Status MeasurePairs(RankContext& context, Communicator& comm, int64_t bytes) {
  if (comm.size() < 2) return absl::OkStatus();
  DeviceMatrix send(context, 1, bytes / 4), receive(context, 1, bytes / 4);
  const int next = (comm.index() + 1) % comm.size();
  const int last = (comm.index() + comm.size() - 1) % comm.size();
  const CallOptions options{"ring", context.options().timeout_s};
  ASSIGN_OR_RETURN(const double seconds, MedianSeconds(context, comm, [&]() -> absl::Status {
                     comm.GroupBegin();
                     RETURN_IF_ERROR(comm.Send(context.stream(), send.view(), next, options));
                     RETURN_IF_ERROR(comm.Receive(context.stream(), receive.view(), last, options));
                     return comm.GroupEnd();
                   }));
  Row(context, absl::StrFormat("ring of sends and receives, %d KiB", bytes >> 10),
      absl::StrFormat("%.1f GB/s out of a rank (%.0f us)", bytes / seconds / 1e9, seconds * 1e6));
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureRates(RankContext& context, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Communicator> comm, context.Join(context.options().ranks, 3));
  for (int64_t bytes = int64_t{64} << 10; bytes <= max_bytes; bytes *= 16) {
    RETURN_IF_ERROR(MeasureCollectives(context, *comm, bytes));
    RETURN_IF_ERROR(MeasurePairs(context, *comm, bytes));
  }
  if (kTokens * kCombineBytes > 4 * max_bytes) return absl::OkStatus();
  for (const bool dispatch : {true, false}) RETURN_IF_ERROR(MeasureTokens(context, *comm, dispatch));
  return absl::OkStatus();
}

}  // namespace shoestring::gpu

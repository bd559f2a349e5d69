// How tokens travel to the experts they chose and back: an MoE layer sees this interface and knows no ranks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/arena.h"
#include "kernels/backend.h"

namespace shoestring {

// Sizes of one MoE layer on one micro-batch.
struct ExchangeShape {
  int64_t tokens = 0;   // T
  int64_t chosen = 0;   // K
  int64_t experts = 0;  // E
  int64_t experts_per_group = 0;
};

// The parts of an exchange that send messages.
enum class ExchangeLeg {
  kCounts,                  // how many tokens will come; begins each dispatch
  kChoices,                 // their experts and gate weights
  kDispatch,                // the tokens
  kCombine,                 // results
  kCombineBackward,         // gradients of the combined output
  kDispatchBackwardWeight,  // gradients of gate weights
  kDispatchBackward,        // gradients of tokens
};
constexpr int kExchangeLegs = 7;
const char* Name(ExchangeLeg leg);  // "dispatch counts", ...; also the name of its calls

// What this rank has sent to other ranks so far and got from them.
struct ExchangeTraffic {
  struct Link {
    int64_t messages = 0;
    int64_t rows = 0;
    int64_t bytes = 0;
  };
  struct Links {
    Link within_node;
    Link between_nodes;
  };
  struct Leg {
    Links sent;
    Links received;
  };
  std::array<Leg, kExchangeLegs> legs;

  const Leg& operator[](ExchangeLeg leg) const { return legs[static_cast<int>(leg)]; }
};

// Four journeys, each begun and awaited, so that another micro-batch can compute meanwhile:
//   forward:   tokens to experts (Dispatch), results back (Combine);
//   backward:  gradients of results to experts (CombineBackward), gradients of tokens back (DispatchBackward).
// What a Begin is handed must stay in place until its Await has returned. On a plan the journeys happen in this order,
// and one at a time; at most one forward and one backward journey of different plans are between Begin and Await at
// once. Sums follow CombineRows: inside a routing group in f32 in expert order, one rounding a group.
//
// The ranks of an expert group call the same journeys in the same order, each for a micro-batch of its own lane.
class ExpertExchange {
 public:
  // Who sent what where, for one layer of one live micro-batch: made by dispatch, read by the other journeys.
  class Plan {
   public:
    virtual ~Plan() = default;
  };

  virtual ~ExpertExchange() = default;
  // Allocates with purpose kExchange.
  virtual std::unique_ptr<Plan> AllocatePlan(Arena& arena) const = 0;

  // R: room for rows that this rank's experts may receive in one micro-batch.
  virtual int64_t max_rows() const = 0;
  // Experts held by this rank.
  virtual int64_t local_experts() const = 0;
  // Lanes whose tokens arrive here: one a rank of the expert group, in the order of the group.
  virtual int lanes() const = 0;
  // Which received rows belong to which local expert, and how many there are; valid after AwaitDispatch.
  virtual Segments segments(const Plan& plan) const = 0;
  // i32 [1, local_experts * lanes + 1]: the rows that lane l sent local expert e are [e * lanes + l] up to the next
  // entry. Valid after AwaitDispatch.
  virtual ConstView lane_offsets(const Plan& plan) const = 0;
  // The same on the host; empty if no other rank sends anything (lanes() is 1).
  virtual absl::Span<const int32_t> host_lane_offsets(const Plan& plan) const = 0;

  // The first failure of communication, or OK. After a failure nothing more is sent, no row is received (counts are 0)
  // and tensors that journeys should write keep unspecified but readable contents: the owner asks after each action.
  virtual absl::Status status() const = 0;
  virtual ExchangeTraffic traffic() const = 0;

  struct DispatchArgs {
    Operand x;            // [T, D] act, or quantised in tiles of one row: then codes and scales travel
    ConstView experts;    // [T, K] i32, ascending; must stay in place as long as the plan is used
    ConstView weights;    // [T, K] f32: gate weights
    MutableOperand rows;  // [R, D] as x: the received tokens, by expert, then lane, then token
    View row_weight;      // [1, R] f32: their gate weights
  };
  virtual void BeginDispatch(Backend& backend, Stream& stream, Plan& plan, const DispatchArgs& args) const = 0;
  virtual void AwaitDispatch(Backend& backend, Stream& stream, Plan& plan) const = 0;

  // rows [R, D] act: the experts' results. out [T, D] = base [T, D] (or 0) + the sum of each token's results.
  virtual void BeginCombine(Backend& backend, Stream& stream, Plan& plan, ConstView rows) const = 0;
  virtual void AwaitCombine(Backend& backend, Stream& stream, Plan& plan, ConstView base, View out) const = 0;

  // d_out [T, D] act, or quantised in tiles of one row: gradient of the combined output. d_rows [R, D] as d_out: the
  // same for each row of an expert.
  virtual void BeginCombineBackward(Backend& backend, Stream& stream, Plan& plan, Operand d_out,
                                    MutableOperand d_rows) const = 0;
  virtual void AwaitCombineBackward(Backend& backend, Stream& stream, Plan& plan) const = 0;

  // d_rows [R, D] act, d_row_weight [1, R] f32: gradients of what was dispatched. The gate weights' gradients
  // d_weights [T, K] f32 come first, because the router's gradient is part of `base` below.
  virtual void BeginDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView d_rows,
                                     ConstView d_row_weight) const = 0;
  virtual void AwaitWeightGradients(Backend& backend, Stream& stream, Plan& plan, View d_weights) const = 0;
  virtual void AwaitDispatchBackward(Backend& backend, Stream& stream, Plan& plan, ConstView base, View dx) const = 0;
};

}  // namespace shoestring

// First pass: what each channel carries, in the order of the senders. Second pass: the actions with all that is added.
#include "parallel/pipeline/lower.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "base/check.h"

namespace shoestring {
namespace {

class Lowering {
 public:
  Lowering(const Program& compute, const Mesh& mesh) : compute_(compute), mesh_(mesh) {}

  Program Run() {
    Program program;
    for (size_t p = 0; p < compute_.positions.size(); ++p) Collect(static_cast<int>(p));
    for (size_t p = 0; p < compute_.positions.size(); ++p) {
      LowerPosition(static_cast<int>(p), program.positions.emplace_back());
    }
    return program;
  }

 private:
  struct Message {
    ActionKind kind = ActionKind::kSendForward;  // of the send
    Work made;                                   // by the sender
    Work read;                                   // by the receiver
    int from = 0;
    int to = 0;
  };
  using Channel = std::tuple<int, int, ActionKind>;

  static Channel ChannelOf(const Message& message) { return {message.from, message.to, message.kind}; }

  // The message by which `made`, done at its place, reaches its reader; nothing if there is none or it is here.
  std::optional<Message> MessageOf(ActionKind kind, const Work& made) const {
    const Work read = Neighbour(made, kind == ActionKind::kSendForward ? 1 : -1);
    if (read.stage.value < 0 || read.stage.value >= mesh_.stages()) return std::nullopt;
    const int from = mesh_.StagePosition(made.stage, made.direction);
    const int to = mesh_.StagePosition(read.stage, read.direction);
    if (from == to) return std::nullopt;
    return Message{kind, made, read, from, to};
  }

  // The message that brings what `read` needs, seen from the receiver.
  std::optional<Message> MessageFor(ActionKind kind, const Work& read) const {
    const Work made = Neighbour(read, kind == ActionKind::kSendForward ? -1 : 1);
    if (made.stage.value < 0 || made.stage.value >= mesh_.stages()) return std::nullopt;
    return MessageOf(kind, made);
  }

  template <typename Fn>
  void ForEachMessageMade(const Action& action, Fn fn) const {
    const Parts parts = PartsOf(action);
    if (parts.forward != nullptr) {
      if (const auto message = MessageOf(ActionKind::kSendForward, *parts.forward)) fn(*message);
    }
    if (parts.backward_input != nullptr) {
      if (const auto message = MessageOf(ActionKind::kSendBackward, *parts.backward_input)) fn(*message);
    }
  }

  void Collect(int position) {
    for (const Action& action : compute_.positions[position]) {
      ForEachMessageMade(action, [&](const Message& message) { under_way_[ChannelOf(message)].push_back(message); });
      if (const Work* weights = PartsOf(action).backward_weight) last_weights_[{position, weights->stage}] = &action;
    }
  }

  void LowerPosition(int position, std::vector<Action>& out) {
    for (const Action& action : compute_.positions[position]) {
      const Parts parts = PartsOf(action);
      CHECK(parts.forward != nullptr || parts.backward_input != nullptr || parts.backward_weight != nullptr);
      if (parts.forward != nullptr) Receive(MessageFor(ActionKind::kSendForward, *parts.forward), out);
      if (parts.backward_input != nullptr) Receive(MessageFor(ActionKind::kSendBackward, *parts.backward_input), out);
      out.push_back(action);
      ForEachMessageMade(action, [&](const Message& m) { out.push_back({m.kind, m.made, {}, m.to}); });
      if (parts.backward_weight == nullptr) continue;
      const StageId stage = parts.backward_weight->stage;
      if (last_weights_.at({position, stage}) == &action) {
        out.push_back({ActionKind::kReduce, {stage, 0, Direction(0)}, {}, -1});
      }
    }
  }

  // Takes the channel's messages up to this one, which may have been taken before.
  void Receive(const std::optional<Message>& message, std::vector<Action>& out) {
    if (!message.has_value()) return;
    std::deque<Message>& queue = under_way_[ChannelOf(*message)];
    const auto wanted = [&](const Message& m) { return m.made == message->made; };
    if (std::none_of(queue.begin(), queue.end(), wanted)) return;
    const bool forward = message->kind == ActionKind::kSendForward;
    for (bool found = false; !found; queue.pop_front()) {
      found = wanted(queue.front());
      const ActionKind kind = forward ? ActionKind::kReceiveForward : ActionKind::kReceiveBackward;
      out.push_back({kind, queue.front().read, {}, queue.front().from});
    }
  }

  const Program& compute_;
  const Mesh& mesh_;
  std::map<Channel, std::deque<Message>> under_way_;
  std::map<std::pair<int, StageId>, const Action*> last_weights_;
};

}  // namespace

Program Lower(const Program& compute, const Mesh& mesh) { return Lowering(compute, mesh).Run(); }

}  // namespace shoestring

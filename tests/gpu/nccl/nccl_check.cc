// The NCCL communicator on real devices: the same results as plain loops, a dead rank noticed, rates.
//
//   nccl_check [--ranks N] [--one-device] [--item parity|faults|rates]... [--max-mib M] [--max-ctas N] [--timeout S]
//   nccl_check --rank R --ranks N --id-file FILE ...      one rank of a larger group, started by another program
//
// Without --rank it starts N processes, each with the device of its number; --one-device puts all of them on device 0,
// each under a host name of its own (NCCL_HOSTID), so that NCCL takes them for machines and talks through loopback.
// Absent --item: parity, faults, rates. Exit codes: 0 all good; 1 a check said no; 64 usage; 69 no GPU or no library.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/gpu/nccl/items.h"

namespace shoestring::gpu {
namespace {

namespace po = boost::program_options;

constexpr int kCheckFailed = 1;
constexpr int kUsage = 64;
constexpr int kNoDevice = 69;

struct Settings {
  RankOptions rank;
  bool one_device = false;
  std::vector<std::string> items;
  int64_t max_mib = 64;
};

absl::Status RunItem(RankContext& context, const std::string& item, const Settings& settings) {
  if (item == "parity") return CheckParity(context);
  if (item == "faults") return settings.rank.ranks > 1 ? CheckFaults(context) : absl::OkStatus();
  return MeasureRates(context, settings.max_mib << 20);
}

// Everything that one rank does; its exit code. `faults` ends the last rank, so it comes last.
int RunRank(const Settings& settings) {
  absl::StatusOr<std::unique_ptr<RankContext>> context = RankContext::Create(settings.rank);
  if (!context.ok()) {
    std::fprintf(stderr, "nccl_check: rank %d: %s\n", settings.rank.rank,
                 std::string(context.status().message()).c_str());
    return kNoDevice;
  }
  for (const std::string& item : settings.items) {
    const absl::Status status = RunItem(**context, item, settings);
    if (!status.ok()) {
      std::printf("| nccl | %s, rank %d of %d | FAILED: %s |\n", item.c_str(), settings.rank.rank, settings.rank.ranks,
                  std::string(status.message()).c_str());
      return kCheckFailed;
    }
    if (settings.rank.rank == 0 && item != "rates") {
      std::printf("| nccl | %s, %d ranks%s | agrees |\n", item.c_str(), settings.rank.ranks,
                  settings.one_device ? " on one device" : "");
      std::fflush(stdout);
    }
  }
  return 0;
}

void ActAsMachine(int rank) {
  setenv("NCCL_HOSTID", absl::StrCat("shoestring-", rank).c_str(), 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  setenv("NCCL_IB_DISABLE", "1", 1);
  setenv("NCCL_MNNVL_ENABLE", "0", 1);
}

// Processes by fork alone: nothing has touched CUDA yet, and no file has to be found again.
int RunAll(Settings settings) {
  std::string folder = "/tmp/nccl_check.XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror("nccl_check: /tmp");
    return kCheckFailed;
  }
  settings.rank.id_file = absl::StrCat(folder, "/id");
  std::vector<pid_t> children;
  for (int rank = 0; rank < settings.rank.ranks; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      settings.rank.rank = rank;
      settings.rank.device = settings.one_device ? 0 : rank;
      if (settings.one_device) ActAsMachine(rank);
      const int code = RunRank(settings);
      std::fflush(nullptr);
      _exit(code);
    }
    children.push_back(child);
  }
  int worst = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    worst = std::max(worst, WIFEXITED(status) ? WEXITSTATUS(status) : kCheckFailed);
  }
  for (int generation = 0; generation < 4; ++generation) {
    unlink(absl::StrCat(settings.rank.id_file, ".", generation).c_str());
  }
  rmdir(folder.c_str());
  return worst;
}

int Main(int argc, char** argv) {
  Settings settings;
  po::options_description flags;
  po::variables_map values;
  flags.add_options()("ranks", po::value(&settings.rank.ranks)->default_value(1))(
      "rank", po::value(&settings.rank.rank)->default_value(-1))("device", po::value<int>())(
      "id-file", po::value(&settings.rank.id_file))("one-device", po::bool_switch(&settings.one_device))(
      "item", po::value(&settings.items))("max-mib", po::value(&settings.max_mib)->default_value(64))(
      "max-ctas", po::value(&settings.rank.max_ctas)->default_value(0))(
      "timeout", po::value(&settings.rank.timeout_s)->default_value(20));
  try {
    po::store(po::parse_command_line(argc, argv, flags), values);
    po::notify(values);
    if (settings.items.empty()) settings.items = {"parity", "rates", "faults"};
    for (const std::string& item : settings.items) {
      if (item != "parity" && item != "faults" && item != "rates") throw po::error("no item '" + item + "'");
    }
    if (settings.rank.rank >= 0 && settings.rank.id_file.empty()) throw po::error("--rank needs --id-file");
  } catch (const po::error& error) {
    std::fprintf(stderr, "nccl_check: %s\n", error.what());
    return kUsage;
  }
  if (settings.rank.rank < 0) return RunAll(std::move(settings));
  settings.rank.device = values.count("device") > 0 ? values["device"].as<int>() : settings.rank.rank;
  return RunRank(settings);
}

}  // namespace
}  // namespace shoestring::gpu

int main(int argc, char** argv) { return shoestring::gpu::Main(argc, argv); }

// The verbs `report` and `compare`: what runs looked like, one or several.
#include <cstdio>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "launch/exit_codes.h"
#include "launch/verbs.h"
#include "trainer/observe/compare.h"
#include "trainer/observe/report.h"

namespace shoestring {
namespace {

constexpr int kDone = static_cast<int>(ExitCode::kDone);

int RunReport(const Values& values) {
  for (const std::string& run : values["run"].as<Words>()) {
    const absl::Status status = WriteReport(PosixFileSystem(), run);
    if (!status.ok()) return Fail(Area::kData, status);
    std::printf("%s\n", JoinPath(run, "report.html").c_str());
  }
  return kDone;
}

int RunCompare(const Values& values) {
  const absl::StatusOr<std::vector<ComparedRun>> runs = ReadRuns(PosixFileSystem(), values["run"].as<Words>());
  if (!runs.ok()) return Fail(Area::kData, runs.status());
  std::fputs(CompareTable(*runs).c_str(), stdout);
  if (values.count("html") == 0) return kDone;
  const absl::Status written =
      WriteFileDurably(PosixFileSystem(), values["html"].as<std::string>(), ComparePage(*runs));
  return written.ok() ? kDone : Fail(Area::kData, written);
}

void DeclareReport(po::options_description& flags) {
  flags.add_options()("run", po::value<Words>()->required()->value_name("RUN_DIR"), "run directories");
}

void DeclareCompare(po::options_description& flags) {
  DeclareReport(flags);
  flags.add_options()("html", po::value<std::string>()->value_name("FILE"), "also write a page with the curves");
}

}  // namespace

std::vector<Verb> ReportVerbs() {
  return {
      {"report", "write report.html of a run, under way or over", "RUN_DIR...",
       "Example:\n  shoestring report runs/first", DeclareReport, "run", RunReport},
      {"compare", "lay runs side by side", "RUN_DIR RUN_DIR... [--html FILE]",
       "Example:\n  shoestring compare runs/first runs/second --html compare.html", DeclareCompare, "run", RunCompare},
  };
}

}  // namespace shoestring

// Rank arithmetic: numbering, groups, placement of stages, experts and lanes.
#include "parallel/mesh.h"

#include <set>

#include "base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shoestring {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

config::LayoutConfig Layout(int pipeline, int data, int expert, int stages) {
  config::LayoutConfig layout;
  layout.set_pipeline_ranks(pipeline);
  layout.set_data_ranks(data);
  layout.set_expert_ranks(expert);
  layout.set_stages(stages);
  return layout;
}

Mesh MakeMesh(const config::LayoutConfig& layout) {
  absl::StatusOr<Mesh> mesh = Mesh::Create(layout);
  CHECK(mesh.ok());
  return *mesh;
}

TEST(MeshTest, DefaultIsOneRank) {
  const Mesh mesh = MakeMesh(config::LayoutConfig());
  EXPECT_EQ(mesh.world_size(), 1);
  EXPECT_EQ(mesh.StagePosition(StageId(0), Direction(0)), 0);
  EXPECT_EQ(mesh.LanesOf(0, Direction(0), 6), (IndexRange{0, 6}));
  EXPECT_EQ(mesh.ToString(), "1 pipeline x 1 data ranks, experts over 1; 1 stage\nposition 0: ranks 0, stages 0\n");
}

TEST(MeshTest, GroupsOfTwoByFour) {
  const Mesh mesh = MakeMesh(Layout(2, 4, 2, 2));
  EXPECT_EQ(mesh.world_size(), 8);
  const Rank rank = mesh.RankAt(1, 3);
  EXPECT_EQ(rank, Rank(7));
  EXPECT_THAT(mesh.PipelineGroup(rank).members, ElementsAre(Rank(3), Rank(7)));
  EXPECT_THAT(mesh.DataGroup(rank).members, ElementsAre(Rank(4), Rank(5), Rank(6), Rank(7)));
  EXPECT_THAT(mesh.ExpertGroup(rank).members, ElementsAre(Rank(6), Rank(7)));
  EXPECT_THAT(mesh.ExpertDataGroup(rank).members, ElementsAre(Rank(5), Rank(7)));
  EXPECT_EQ(mesh.ExpertGroup(rank).IndexOf(rank), 1);
  EXPECT_EQ(mesh.ExpertsOf(rank, 8), (IndexRange{4, 4}));
  EXPECT_EQ(mesh.FirstExpertOf(Rank(6), 8), ExpertId(0));
}

TEST(MeshTest, EveryRankIsInExactlyOneGroupOfEachKind) {
  const Mesh mesh = MakeMesh(Layout(3, 6, 2, 3));
  std::set<Rank> seen_data, seen_pipeline;
  for (int p = 0; p < 3; ++p) {
    for (Rank r : mesh.DataGroup(mesh.RankAt(p, 0)).members) EXPECT_TRUE(seen_data.insert(r).second);
  }
  for (int d = 0; d < 6; ++d) {
    for (Rank r : mesh.PipelineGroup(mesh.RankAt(0, d)).members) EXPECT_TRUE(seen_pipeline.insert(r).second);
  }
  EXPECT_EQ(seen_data.size(), 18u);
  EXPECT_EQ(seen_pipeline.size(), 18u);
  for (int r = 0; r < 18; ++r) EXPECT_EQ(mesh.RankAt(mesh.PositionOf(Rank(r)), mesh.DataIndexOf(Rank(r))), Rank(r));
}

TEST(MeshTest, PlacementFollowsTheSchedule) {
  config::LayoutConfig loop = Layout(2, 1, 1, 4);
  loop.mutable_interleaved()->set_chunks(2);
  EXPECT_THAT(MakeMesh(loop).StagesAt(1), ElementsAre(StageId(1), StageId(3)));

  config::LayoutConfig v = Layout(2, 1, 1, 4);
  v.mutable_zb_v();
  EXPECT_THAT(MakeMesh(v).StagesAt(0), ElementsAre(StageId(0), StageId(3)));
  EXPECT_THAT(MakeMesh(v).StagesAt(1), ElementsAre(StageId(1), StageId(2)));

  config::LayoutConfig mirror = Layout(4, 1, 1, 4);
  mirror.mutable_dualpipe();
  const Mesh mesh = MakeMesh(mirror);
  EXPECT_EQ(mesh.directions(), 2);
  EXPECT_THAT(mesh.StagesAt(1), ElementsAre(StageId(1), StageId(2)));
  EXPECT_EQ(mesh.StagePosition(StageId(0), Direction(1)), 3);
}

TEST(MeshTest, LanesAreNumberedDirectionMajor) {
  config::LayoutConfig layout = Layout(2, 4, 4, 2);
  layout.mutable_dualpipe();
  const Mesh mesh = MakeMesh(layout);
  EXPECT_EQ(mesh.LanesOf(3, Direction(0), 8), (IndexRange{3, 1}));
  EXPECT_EQ(mesh.LanesOf(0, Direction(1), 8), (IndexRange{4, 1}));
  EXPECT_EQ(mesh.LanesOf(1, Direction(1), 16), (IndexRange{10, 2}));
}

TEST(MeshTest, RefusesWhatDoesNotDivide) {
  EXPECT_THAT(Mesh::Create(Layout(1, 4, 3, 1)).status().message(), HasSubstr("expert_ranks (3)"));
  EXPECT_THAT(Mesh::Create(Layout(4, 1, 1, 3)).status().message(), HasSubstr("stages is 3"));
  EXPECT_THAT(Mesh::Create(Layout(0, 1, 1, 1)).status().message(), HasSubstr("at least 1"));
}

TEST(MeshTest, PrintsTheGrid) {
  EXPECT_EQ(MakeMesh(Layout(2, 4, 2, 2)).ToString(),
            "2 pipeline x 4 data ranks, experts over 2; 2 stages\n"
            "position 0: ranks 0..3, stages 0\n"
            "position 1: ranks 4..7, stages 1\n");
}

}  // namespace
}  // namespace shoestring

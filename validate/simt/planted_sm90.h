/* planted_sm90.h — the bugs that test_gemm_sm90_planted.cpp can put into the Hopper products, one at a time. */
#ifndef PLANTED_SM90_H
#define PLANTED_SM90_H

enum Planted {
    kNone = 0,
    kNoWait,
    kWrongPhase,
    kNoFence,
    kEarlyStage,
    kFewBytes,
    kWrongStride,
    kInvisibleBarriers,
    kNoProxyFence,
    kNoGroupBarrier,
    kNoOutBarrier,
    kNoClusterWait,
    kNoWarpBarrier,
    kNoTableBarrier,
    kNoCopyWait,
    kPlantedBugs
};

static const char *const planted_names[kPlantedBugs] = {
    "no bug",
    "consumers do not wait for a stage",
    "consumers wait for the phase before",
    "no wgmma.fence",
    "a stage is handed back while wgmma reads it",
    "the producer announces 64 bytes too few",
    "the descriptor's stride is half of what it is",
    "barriers are not made visible to the copies",
    "gemm_dx: decoded weights without a proxy fence",
    "gemm_dx: decoded weights without the group's barrier",
    "gemm: the way out without the group's barrier",
    "a block does not wait for its cluster",
    "stream: lanes of a warp do not wait for each other",
    "stream: table and X without the block's barrier",
    "stream: X is read while it is copied",
};

extern int planted_bug;

#endif

#pragma once

#include <cstddef>

namespace relay::coordinator {

/// How many pipelines an instance should take or hand over. Pure.
struct Share {
  std::size_t take = 0;     ///< how many more it may take
  std::size_t release = 0;  ///< how many it should hand over
};

/// `held` of `pipelines`, with `instances` alive (this one included). An instance takes at most
/// ceil(pipelines / instances); in leader mode the leader takes all and the others none.
Share share_of(std::size_t pipelines, std::size_t instances, std::size_t held);
Share leader_share(std::size_t pipelines, bool leader, std::size_t held);

}  // namespace relay::coordinator

#pragma once

#include "backends/sqs/options.h"
#include "config/option_table.h"
#include "config/tls.h"
#include "http/proxy_options.h"

namespace relay::sqs {

inline constexpr config::Option<QueueOptions> kOwnQueueOptions[] = {
    {{.name = "queue_url",
      .meaning = "the queue's URL; a name that ends in .fifo is a FIFO queue",
      .required = true},
     config::fills<&QueueOptions::queue_url>},
    {{.name = "endpoint",
      .meaning = "where requests go instead of the host of queue_url: "
                 "http://host:port"},
     config::fills<&QueueOptions::endpoint>},
};

inline constexpr config::Option<QueueOptions> kQueueTimeOptions[] = {
    {{.name = "timeout",
      .type = config::FieldType::duration,
      .default_text = "10s",
      .meaning = "how long a request may take",
      .min = 0.01,
      .max = 3600},
     config::fills<&QueueOptions::timeout>},
    {{.name = "connect_timeout",
      .type = config::FieldType::duration,
      .default_text = "5s",
      .meaning = "how long resolving the name and connecting may take",
      .min = 0.01,
      .max = 3600},
     config::fills<&QueueOptions::client, &http::ClientOptions::connect_timeout>},
};

/// The options that sink and source share.
inline constexpr auto kQueueOptions = config::joined<QueueOptions>(
    kOwnQueueOptions, config::within<&QueueOptions::identity, aws::kIdentityOptions>,
    kQueueTimeOptions, config::within<&QueueOptions::client, http::kProxyOptions>,
    config::within<&QueueOptions::client, config::kTlsOptions>);

}  // namespace relay::sqs

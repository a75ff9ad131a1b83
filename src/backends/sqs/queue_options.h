#pragma once

#include "backends/sqs/options.h"
#include "config/option_table.h"
#include "config/tls.h"

namespace relay::sqs {

inline constexpr config::Option<QueueOptions> kOwnQueueOptions[] = {
    {{.name = "queue_url",
      .meaning = "the queue's URL; a name that ends in .fifo is a FIFO queue",
      .required = true},
     config::fills<&QueueOptions::queue_url>},
    {{.name = "region",
      .meaning = "AWS region; the default is what queue_url, the environment or the "
                 "profile says"},
     config::fills<&QueueOptions::region>},
    {{.name = "endpoint",
      .meaning = "where requests go instead of the host of queue_url: "
                 "http://host:port"},
     config::fills<&QueueOptions::endpoint>},
    {{.name = "profile",
      .meaning = "profile of the shared credential files; the default is AWS_PROFILE"},
     config::fills<&QueueOptions::profile>},
    {{.name = "access_key_id",
      .meaning = "access key; the default is the usual chain: environment, shared "
                 "files, web identity, container, instance",
      .secret = true},
     config::fills<&QueueOptions::credentials, &Credentials::access_key>},
    {{.name = "secret_access_key", .meaning = "secret of access_key_id", .secret = true},
     config::fills<&QueueOptions::credentials, &Credentials::secret_key>},
    {{.name = "session_token", .meaning = "token of temporary keys", .secret = true},
     config::fills<&QueueOptions::credentials, &Credentials::session_token>},
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
    kOwnQueueOptions, config::within<&QueueOptions::client, config::kTlsOptions>);

}  // namespace relay::sqs

"""dpdau: daily and monthly active users with differential privacy, from event logs in which people can be erased."""

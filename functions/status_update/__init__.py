"""A service that is impaired, down or back is shown so on IzzitUp's status page."""

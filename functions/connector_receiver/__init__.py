"""What the InTouch Connector delivers, prospects and members of gyms, becomes records in Egito."""
